"""willisma/SiT: DiT's network on the straight path, its solvers and its conversions."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from polydit.core.models.convert import dit_from_published
from polydit.core.objectives.flow import LinearPath
from polydit.core.sampling import guided_model, integrate
from polydit.core.testing.golden import GoldenCase

GUIDED_CHANNELS = 3


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    model = dit_from_published(
        case.state_dict(),
        return_sigma=False,
        heads=case.config["num_heads"],
        sample_size=case.config["input_size"],
    )
    x, t, y = (case.inputs()[name] for name in ("x", "t", "y"))
    null = torch.full_like(y, model.config.num_classes)

    def velocity(state: Tensor, time: Tensor) -> Tensor:
        return model(state, time, y).sample

    def guided_velocity(state: Tensor, time: Tensor) -> Tensor:
        def doubled(both: Tensor) -> Tensor:
            return model(both, torch.cat([time, time]), torch.cat([y, null])).sample

        return guided_model(doubled, state, case.config["cfg_scale"], GUIDED_CHANNELS)

    guided = guided_velocity(x, t)
    null_half = torch.cat([guided[:, :GUIDED_CHANNELS], model(x, t, null).sample[:, GUIDED_CHANNELS:]], dim=1)
    results = {"forward": model(x, t, y).sample, "forward_with_cfg": torch.cat([guided, null_half])}
    for name in case.output_names:
        if solver := re.fullmatch(r"ode_(euler|heun)2?_(\d+)", name):
            results[name] = integrate(guided_velocity, x, torch.linspace(0, 1, int(solver[2])), solver[1])
        elif at := re.fullmatch(r"(score_from_velocity|noise_from_velocity|sde_drift)_t([\d.]+)", name):
            time = torch.full_like(t, float(at[2]))
            arguments = (x, velocity(x, time), time, *([1 - time] if at[1] == "sde_drift" else []))
            results[name] = getattr(LinearPath, at[1])(*arguments)
    return results
