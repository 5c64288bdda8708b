"""DDT: at which steps its encoder's state is computed anew."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from polydit.core.sampling.cache import optimal_sharing
from polydit.core.testing.golden import GoldenCase


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    states = case.inputs()["states"].cumsum(0)
    return {"recompute": torch.tensor(optimal_sharing(states, case.config["state_refresh_rate"]))}
