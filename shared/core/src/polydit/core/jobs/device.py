"""Where to compute and in which precision: what `--device auto` and `--dtype auto` mean."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polydit.core.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is there.

    Attributes:
        name: "cpu", "cuda:0", "mps".
        description: The processor's own name.
        free_bytes: Memory that is free on it now; None for the CPU, whose memory others use too.
    """

    name: str
    description: str
    free_bytes: int | None = None

    @property
    def type(self) -> str:
        """ "cpu", "cuda" or "mps"."""
        return self.name.partition(":")[0]


def choose_device(requested: str = "auto") -> Device:
    """The device of that name; for "auto" the first of cuda, mps, cpu that is there.

    Raises:
        InputError: The machine, or this build of torch, has no such device.
    """
    import torch

    if requested == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        requested = next(name for name, available in there.items() if available)
    kind, _, index = requested.partition(":")
    if kind == "cuda":
        return _cuda(int(index or 0), requested)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise _absent(requested, ["auto", "cpu"])
    return Device(kind, platform.processor() or platform.machine())


def _cuda(index: int, requested: str) -> Device:
    import torch

    if index >= torch.cuda.device_count():
        there = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise _absent(requested, ["auto", "cpu", *there])
    free, _ = torch.cuda.mem_get_info(index)
    return Device(f"cuda:{index}", torch.cuda.get_device_name(index), free)


def _absent(requested: str, there: list[str]) -> InputError:
    return InputError(
        "no such device here",
        where=f"--device {requested}",
        expected=" or ".join(there),
        hint="Run: polydit doctor",
    )


def choose_dtype(requested: str = "auto") -> torch.dtype:
    """The network's precision: fp32, bf16 or fp16; "auto" is fp32, which every device has."""
    import torch

    names = {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return names[requested]
