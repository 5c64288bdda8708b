"""LEOXC1571/GFMDiff: the dual-track transformer and its training error."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from polydit.core.testing.golden import GoldenCase
from polydit.molgen.gfmdiff.loss import published_error
from polydit.molgen.gfmdiff.network import gfmdiff_from_published


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    given = case.inputs()
    if "pred" in given:
        pair = (given["pred"], given["noise"], given["alpha"][:, 0], given["mask"])
        return {
            "error": published_error(*pair, degree_weight=case.config["degree_weight"]),
            "error_without_gfloss": published_error(*pair, degree_weight=0.0),
        }
    model = gfmdiff_from_published(case.state_dict(), heads=case.config["num_heads"])
    noise = model(given["z"], given["t"][:, 0], given["mask"])
    return {"velocity": noise[..., :3], "features": noise[..., 3:]}
