"""Distances in the features of a network that the user names: none ships with the package, and none is downloaded.

What they are called is what they are: with Inception's published weights the Fréchet distance is FID and the kernel
distance KID, with those of LPIPS the perceptual distance is LPIPS; with any other file they are not.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, UInt8

from polydit.core.checkpoints.files import sha256_of
from polydit.core.errors import InputError
from polydit.core.figure import Measure

_SAFE = "TorchScript that takes images (n, 3, h, w) of 0..255 and gives features (n, d)"
FEWEST = 10  # tiles that a covariance is taken of


class TileFeatures(NamedTuple):
    """Features of a virtual tile and of its reference."""

    virtual: Float64[np.ndarray, " d"]
    real: Float64[np.ndarray, " d"]


class FeatureNetwork:
    """A network of a TorchScript file, on the CPU in float32.

    The published files of StyleGAN3 are such: ``inception-2015-12-05.pt`` for FID and KID, ``vgg16.pt`` for LPIPS.

    Args:
        path: The file. Its program is run: name only one that you trust.

    Raises:
        InputError: It is no TorchScript.
    """

    def __init__(self, path: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch would have it exported anew
                self._module: Any = torch.jit.load(str(path), map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            raise InputError("is no TorchScript", where=str(path), expected=_SAFE) from error
        self.path, self.name = path, f"{path.name} sha256:{sha256_of(path)[:12]}"
        taken = {argument.name for argument in self._module.forward.schema.arguments}
        self.is_perceptual = "return_lpips" in taken
        self._options = {name: True for name in ("return_features", "return_lpips") if name in taken}
        if self.is_perceptual and "resize_images" in taken:
            self._options["resize_images"] = False

    def pair(self, virtual: UInt8[np.ndarray, "h w 3"], real: UInt8[np.ndarray, "h w 3"]) -> TileFeatures:
        """Of a tile and its reference.

        Raises:
            InputError: The network does not take them.
        """
        images = torch.from_numpy(np.stack([virtual, real])).permute(0, 3, 1, 2).float()
        try:
            with torch.no_grad():
                found = self._module(images, **self._options)
            first, second = found.flatten(1).double().numpy()
        except (RuntimeError, ValueError, AttributeError) as error:
            problem = f"does not take a tile of {virtual.shape[1]} x {virtual.shape[0]}"
            raise InputError(problem, where=str(self.path), expected=_SAFE) from error
        return TileFeatures(first, second)

    def measures(self, pairs: Sequence[TileFeatures]) -> tuple[Measure, ...]:
        """The figures of a set of tiles; their value is None where there are fewer than `FEWEST`."""
        virtual, real = (np.array([getattr(pair, side) for pair in pairs]) for side in TileFeatures._fields)
        if self.is_perceptual:
            distance = float(((virtual - real) ** 2).sum(1).mean()) if pairs else None
            return (self._measure("perceptual distance", distance, len(pairs), "mean over tiles; LPIPS"),)
        enough = len(pairs) >= FEWEST
        return (
            self._measure(
                "Fréchet distance", frechet_distance(virtual, real) if enough else None, len(pairs), "FID"
            ),
            self._measure(
                "kernel distance", kernel_distance(virtual, real) if enough else None, len(pairs), "KID"
            ),
        )

    def _measure(self, name: str, value: float | None, count: int, known_as: str) -> Measure:
        method = (
            f"{known_as} if {self.name} holds the weights of that metric; of the tiles and their references"
        )
        return Measure(name=name, value=value, unit="", count=count, method=method)


def frechet_distance(virtual: Float64[np.ndarray, "n d"], real: Float64[np.ndarray, "m d"]) -> float:
    """|μ - ν|² + tr(A + B - 2 (A B)^½) of two sets of features (Heusel et al. 2017, equation 6)."""
    offset = virtual.mean(0) - real.mean(0)
    a, b = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (virtual, real))
    # the eigenvalues of A B are real and not negative; rounding makes some of them neither
    root = np.sqrt(np.maximum(np.linalg.eigvals(a @ b).real, 0.0)).sum()
    return float(offset @ offset + np.trace(a) + np.trace(b) - 2.0 * root)


def kernel_distance(virtual: Float64[np.ndarray, "n d"], real: Float64[np.ndarray, "m d"]) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x·y / d + 1)³ (Bińkowski et al. 2018, section 4)."""

    def kernel(x: Float64[np.ndarray, "n d"], y: Float64[np.ndarray, "m d"]) -> Float64[np.ndarray, "n m"]:
        return (x @ y.T / x.shape[1] + 1.0) ** 3

    def within(x: Float64[np.ndarray, "n d"]) -> float:
        values = kernel(x, x)
        return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))

    return within(virtual) + within(real) - 2.0 * float(kernel(virtual, real).mean())
