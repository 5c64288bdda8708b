"""States and actions on the scale that a network likes, and back. numpy only.

The modes and their names follow LeRobot. Shapes: d dimensions of a feature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from polydit.core.checkpoints.files import read_header
from polydit.core.errors import CheckpointError, InputError
from polydit.robopolicy.episode import ACTION, STATE

Mode = Literal["mean_std", "min_max", "quantiles", "identity"]
Row = Mapping[str, np.ndarray]  # one feature's statistics: {"mean": ..., "std": ..., ...}

_KEPT = ("min", "max", "mean", "std", "q01", "q99")
_CONSTANT = (
    1e-4  # spread below which a dimension counts as constant; metres, radians and [-1, 1] are far above
)
_LIMIT = 1 << 20  # dimensions of a feature; the largest robots have a few hundred
NAME = "normalizer"


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale:
    """One feature's way to the network and back: x → (x - offset) / spread.

    Args:
        mode: "mean_std": to mean 0 and deviation 1. "min_max": the range to [-1, 1]. "quantiles": the range from the
            first to the last per cent to [-1, 1]. "identity": as it is.
        statistics: min, max, mean, std, q01 and q99 of the training data.

    A dimension that was constant in training (spread below 1e-4) becomes its difference from that constant: it is 0 in
    training, and a reading that is off by a little does not become a huge number.

    Raises:
        InputError: If a statistic is missing, not finite, or of another shape.
    """

    mode: Mode
    statistics: Row

    def __post_init__(self) -> None:
        for key in _KEPT:
            if key not in self.statistics:
                raise InputError(f"the statistics lack {key!r}", expected=", ".join(_KEPT))
            row = self.statistics[key]
            if row.shape != self.statistics["mean"].shape or row.ndim != 1:
                shapes = {name: self.statistics[name].shape for name in ("mean", key)}
                raise InputError(
                    f"the statistics have different shapes: {shapes}", expected="one number each"
                )
            if not np.isfinite(row).all():
                raise InputError(f"the statistic {key!r} holds a value that is no finite number")

    @property
    def size(self) -> int:
        """Dimensions d."""
        return len(self.statistics["mean"])

    @property
    def low(self) -> Float[np.ndarray, " d"]:
        """Smallest values of the training data."""
        return self.statistics["min"]

    @property
    def high(self) -> Float[np.ndarray, " d"]:
        """Largest values of the training data."""
        return self.statistics["max"]

    def normalize(self, values: Float[np.ndarray, "*rows d"]) -> Float[np.ndarray, "*rows d"]:
        """For the network, float32."""
        offset, spread = self._affine()
        return ((values - offset) / spread).astype(np.float32)

    def denormalize(self, values: Float[np.ndarray, "*rows d"]) -> Float[np.ndarray, "*rows d"]:
        """Back to the data's units, float32."""
        offset, spread = self._affine()
        return (values * spread + offset).astype(np.float32)

    def clip(self, values: Float[np.ndarray, "*rows d"]) -> Float[np.ndarray, "*rows d"]:
        """Into the range of the training data, in the data's units."""
        return np.clip(values, self.low, self.high).astype(np.float32)

    def _affine(self) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
        """Offset and spread."""
        s = self.statistics
        if self.mode == "identity":
            return np.zeros(self.size), np.ones(self.size)
        if self.mode == "mean_std":
            offset, spread = s["mean"], s["std"]
        else:
            low, high = ("min", "max") if self.mode == "min_max" else ("q01", "q99")
            offset, spread = (s[low] + s[high]) / 2.0, (s[high] - s[low]) / 2.0
        constant = spread < _CONSTANT
        return np.where(constant, s["mean"], offset), np.where(constant, 1.0, spread)


@dataclass(frozen=True, eq=False)
class Normalizer:
    """The scales of state and action; stored as `normalizer.json` and `normalizer.safetensors`."""

    state: Scale
    action: Scale

    @classmethod
    def of(cls, statistics: Mapping[str, Row], *, state: Mode, action: Mode) -> Normalizer:
        """From a data set's statistics by feature.

        Raises:
            InputError: If a feature or a statistic is missing.
        """
        modes: dict[str, Mode] = {STATE: state, ACTION: action}
        if missing := modes.keys() - statistics.keys():
            raise InputError(f"there are no statistics of {', '.join(sorted(missing))}")
        rows = {key: _kept(statistics[key], key) for key in modes}
        return cls(*(Scale(mode=modes[key], statistics=rows[key]) for key in modes))

    def save(self, folder: Path) -> None:
        """Write both files."""
        scales = {STATE: self.state, ACTION: self.action}
        (folder / f"{NAME}.json").write_text(
            json.dumps({k: {"mode": s.mode} for k, s in scales.items()}, indent=1) + "\n"
        )
        values = {
            f"{k}.{name}": np.ascontiguousarray(s.statistics[name])
            for k, s in scales.items()
            for name in _KEPT
        }
        save_file(values, folder / f"{NAME}.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Normalizer:
        """Read both files.

        Raises:
            CheckpointError: If one is missing or damaged.
        """
        path = folder / f"{NAME}.safetensors"
        try:
            modes = {
                key: entry["mode"] for key, entry in json.loads((folder / f"{NAME}.json").read_text()).items()
            }
            _check_sizes(path)
            values = load_file(path)
            rows = {key: {name: values[f"{key}.{name}"] for name in _KEPT} for key in (STATE, ACTION)}
            if unknown := set(modes.values()) - set(get_args(Mode)):
                raise ValueError(f"unknown mode {', '.join(map(str, sorted(unknown)))}")
            return cls(*(Scale(mode=modes[key], statistics=rows[key]) for key in (STATE, ACTION)))
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            SafetensorError,
            InputError,
        ) as error:
            problem = f"the normalisation cannot be read ({error})"
            raise CheckpointError(
                problem, where=str(path), expected=f"{NAME}.json and {NAME}.safetensors"
            ) from error


def _kept(row: Row, key: str) -> dict[str, np.ndarray]:
    if missing := [name for name in _KEPT if name not in row]:
        raise InputError(f"the statistics of {key} lack {', '.join(missing)}", hint="Compute them anew")
    return {name: np.atleast_1d(np.asarray(row[name], dtype=np.float64)) for name in _KEPT}


def _check_sizes(path: Path) -> None:
    for name, entry in read_header(path).items():
        if len(entry["shape"]) != 1 or not 0 < entry["shape"][0] <= _LIMIT:
            raise ValueError(f"{name} has the shape {entry['shape']}")
