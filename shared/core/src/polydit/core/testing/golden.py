"""Golden cases: what a published implementation computes on a tiny configuration.

A case is one JSON file. It names the constructor arguments, the entries of the state dict with a rule that fills
them, a rule that makes the inputs, and figures of the outputs. Nobody needs the published code to use a case:

    case = GoldenCase.read(path)
    model.load_state_dict(converted(case.state_dict()))
    case.compare({"forward": model(**case.inputs())})

Every random number comes from ``numpy.random.RandomState``, whose streams never change.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["GoldenCase", "GoldenMismatchError"]


class GoldenMismatchError(AssertionError):
    """An output is missing, of another shape, or deviates by more than the case's tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenCase:
    """One published implementation at one tiny configuration.

    Attributes:
        name: Stem of the file.
        system: The published system; the adapter of this name builds our model for it.
        config: Constructor arguments of the published module.
        tolerance: Largest absolute deviation of any compared value.
        notes: Order of arguments, constants and quirks of the published code.
        spec: The whole file.
    """

    name: str
    system: str
    config: Mapping[str, Any]
    tolerance: float
    notes: str
    spec: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> GoldenCase:
        """Reads one case from its JSON file."""
        spec = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(
            name=Path(path).stem,
            system=spec["system"],
            config=spec["config"],
            tolerance=spec["tolerance"],
            notes=spec["notes"],
            spec=spec,
        )

    def state_dict(self, kept: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Makes the published module's state dict again, in the published order and with the published names.

        Args:
            kept: Values of the entries that keep what the published constructor gives (fixed tables, counters).
                Those that are not given here are left out, as are entries that are not floating point.
        """
        rule, kept = self.spec["weights"], kept or {}
        weights: dict[str, Tensor] = {}
        for index, (name, shape, dtype) in enumerate(rule["state_dict"]):
            if name in kept:
                weights[name] = kept[name]
            elif name not in rule["kept"] and dtype.startswith(("float", "bfloat")):
                random = np.random.RandomState(rule["seed"] + index)  # by position: kept entries count too
                value = (random.standard_normal(shape) * rule["scale"]).astype(np.float32)
                positive = name.endswith(tuple(rule["positive"]))
                weights[name] = torch.from_numpy(np.abs(value) + 1 if positive else np.asarray(value))
        return weights

    def inputs(self) -> dict[str, Tensor]:
        """Makes the inputs: float32 unless the case says otherwise, int64 for integers."""
        return {name: _make_input(rule) for name, rule in self.spec["inputs"].items()}

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs that the case has figures of."""
        return tuple(self.spec["outputs"])

    def compare(self, outputs: Mapping[str, Tensor], relative: Collection[str] = ()) -> dict[str, float]:
        """Checks every output of the case and returns the worst deviation of each.

        Args:
            outputs: What our model gives, by the names of the case.
            relative: Outputs of large numbers, which the case's notes say to compare relatively.

        Raises:
            GoldenMismatchError: An output is missing, or :meth:`check` refuses it.
        """
        missing = [name for name in self.output_names if name not in outputs]
        if missing:
            raise GoldenMismatchError(f"{self.name}: not computed: {', '.join(missing)}")
        return {name: self.check(name, outputs[name], name in relative) for name in self.output_names}

    def check(self, name: str, got: Tensor, relative: bool = False) -> float:
        """Compares one output with its figures.

        Args:
            name: An entry of :attr:`output_names`.
            got: What our model gives, in the published shape.
            relative: Divide the deviation of a stored value above 1 by that value.

        Returns:
            The worst deviation among the stored values, the mean and the standard deviation.

        Raises:
            GoldenMismatchError: Another shape, a value that is not finite, or a deviation above the tolerance.
        """
        figures = self.spec["outputs"][name]
        if list(got.shape) != figures["shape"]:
            raise GoldenMismatchError(
                f"{self.name}, output {name}: shape {list(got.shape)}, expected {figures['shape']}"
            )
        flat = got.detach().cpu().double().flatten().numpy()
        values, expected = flat[figures["at"]], np.asarray(figures["values"], dtype=np.float64)
        deviations = np.abs(values - expected)
        if relative:
            deviations /= np.maximum(1.0, np.abs(expected))
        worst = int(deviations.argmax())  # a NaN counts as the largest
        if not deviations[worst] <= self.tolerance:
            at = figures["at"][worst]
            index = tuple(int(i) for i in np.unravel_index(at, got.shape))
            raise GoldenMismatchError(
                f"{self.name}, output {name}: worst deviation {deviations[worst]:.3e} at {index} (flat {at}): "
                f"expected {expected[worst]:.8g}, got {values[worst]:.8g}, tolerance {self.tolerance:g}; "
                f"{int((~(deviations <= self.tolerance)).sum())} of {len(values)} values are outside"
            )
        whole = [self._check_moment(name, moment, flat, figures[moment]) for moment in ("mean", "std")]
        return max(float(deviations[worst]), *whole)

    def _check_moment(self, name: str, moment: str, flat: np.ndarray, expected: float) -> float:
        """Compares the mean or the standard deviation of all values, also of those that are not stored."""
        got = float(getattr(flat, moment)())
        deviation = abs(got - expected)
        if not deviation <= self.tolerance:
            raise GoldenMismatchError(
                f"{self.name}, output {name}: {moment} of all values deviates by {deviation:.3e}: "
                f"expected {expected:.8g}, got {got:.8g}, tolerance {self.tolerance:g}"
            )
        return deviation


def _make_input(rule: Mapping[str, Any]) -> Tensor:
    """Makes one input tensor by its rule: ``normal``, ``uniform``, ``integers``, ``bool`` or literal ``values``."""
    kind = rule["kind"]
    if kind == "values":
        value = np.asarray(rule["values"])
        plain = "float32" if value.dtype.kind == "f" else value.dtype.name
        return torch.from_numpy(value.astype(rule.get("dtype", plain)))
    random, shape = np.random.RandomState(rule["seed"]), rule["shape"]
    if kind == "normal":
        value = (random.standard_normal(shape) * rule.get("scale", 1.0)).astype(np.float32)
    elif kind == "uniform":
        value = random.uniform(rule["low"], rule["high"], shape).astype(np.float32)
    elif kind == "integers":
        value = random.randint(rule["low"], rule["high"], shape).astype(np.int64)
    elif kind == "bool":
        value = random.uniform(size=shape) < rule["p"]
    else:
        raise ValueError(
            f"unknown kind of input {kind!r}; expected normal, uniform, integers, bool or values"
        )
    return torch.from_numpy(np.asarray(value))
