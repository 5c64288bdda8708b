"""What `--device` and `--dtype` mean."""

from __future__ import annotations

import pytest
import torch

from polydit.core.errors import InputError
from polydit.core.jobs.device import choose_device, choose_dtype


def test_auto_takes_the_fastest_device_that_is_there() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = choose_device("auto")
    assert device.type == expected
    assert device.description
    torch.zeros(1, device=device.name)


def test_the_cpu_is_always_there() -> None:
    device = choose_device("cpu")
    assert (device.name, device.type, device.free_bytes) == ("cpu", "cpu", None)


@pytest.mark.parametrize("name", ["cuda:99", *([] if torch.cuda.is_available() else ["cuda"])])
def test_an_absent_device_is_refused_with_those_that_are_there(name: str) -> None:
    with pytest.raises(InputError, match=rf"--device {name}: no such device here; expected auto or cpu"):
        choose_device(name)


def test_precisions() -> None:
    names = {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    assert {name: choose_dtype(name) for name in names} == names
