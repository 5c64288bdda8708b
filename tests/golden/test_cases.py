"""Every golden case, run through the same converters that users get.

``adapters/<system>.py`` has one function ``outputs(case)`` that builds our model from the case's config, converts the
case's state dict and returns every output by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from polydit.core.testing.golden import GoldenCase


def test_case(
    case: GoldenCase,
    adapter: Callable[[GoldenCase], Mapping[str, Tensor]],
    relative: Collection[str],
    record_property: Callable[[str, object], None],
) -> None:
    with torch.no_grad():
        outputs = adapter(case)
    for name, deviation in case.compare(outputs, relative).items():
        record_property(name, f"{deviation:.1e}")
