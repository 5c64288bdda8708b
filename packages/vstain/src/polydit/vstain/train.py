"""What StainDiffuser learns: from noise and H&E the stain and the mask of positive cells, on one clock.

Shapes: b tiles, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.objectives import GaussianDiffusion
from polydit.vstain.colour import coarse_mask
from polydit.vstain.model import StainDiT
from polydit.vstain.pairs import StainPair
from polydit.vstain.pictures import Normalisation, from_image


@dataclass(frozen=True, eq=False)
class StainBatch:
    """Pieces of tiles, of one size.

    Args:
        he: H&E in [-1, 1].
        ihc: The stain in [-1, 1].
        mask: Analog bits (Chen et al. 2023): 1 in positive cells, -1 elsewhere.
        stain: Numbers of the stains.
    """

    he: Float[Tensor, "b 3 h w"]
    ihc: Float[Tensor, "b 3 h w"]
    mask: Float[Tensor, "b 1 h w"]
    stain: Int[Tensor, " b"]


@dataclass(frozen=True, eq=False)
class TileBatch:
    """Whole tiles of one batch, which may differ in size.

    Args:
        tiles: H&E, stain and mask, 7 channels of bytes each.
        stain: Numbers of the stains.
        device: Where pieces of them go.
    """

    tiles: Sequence[np.ndarray]
    stain: Int[Tensor, " b"]
    device: torch.device

    def to(self, device: torch.device) -> TileBatch:
        """For another device."""
        return TileBatch(self.tiles, self.stain, device)

    def crops(self, side: int, generator: torch.Generator) -> StainBatch:
        """A square piece of each tile at a random place, turned and mirrored at random.

        Args:
            side: Pixels.
            generator: Draws place and turn.
        """
        draws = torch.rand((len(self.tiles), 2), generator=generator).tolist()
        turns = torch.randint(8, (len(self.tiles),), generator=generator).tolist()
        pieces = [
            _turned(_piece(tile, side, *draw), turn)
            for tile, draw, turn in zip(self.tiles, draws, turns, strict=True)
        ]
        bytes_ = torch.from_numpy(np.stack(pieces)).to(self.device)
        pictures = from_image(bytes_)
        return StainBatch(pictures[:, :3], pictures[:, 3:6], pictures[:, 6:], self.stain.to(self.device))


def _piece(tile: np.ndarray, side: int, down: float, across: float) -> np.ndarray:
    top, left = (
        int(share * (size - side + 1)) for share, size in zip((down, across), tile.shape, strict=False)
    )
    return tile[top : top + side, left : left + side]


def _turned(piece: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight symmetries of the square."""
    turned = np.rot90(piece, turn % 4)
    return np.ascontiguousarray(turned[:, ::-1] if turn >= 4 else turned)


@dataclass(frozen=True)
class Collate:
    """Pairs to a batch; a mask that is not known is derived from the stain, as the coarse labels of the paper are.

    Args:
        stains: Names in the order of their numbers.
        crop: Pixels of the pieces that will be cut: a smaller tile is an error.
    """

    stains: tuple[str, ...]
    crop: int

    def __call__(self, pairs: Sequence[StainPair]) -> TileBatch:
        numbers = torch.tensor([self.stains.index(pair.stain) for pair in pairs])
        return TileBatch([self._tile(pair) for pair in pairs], numbers, torch.device("cpu"))

    def _tile(self, pair: StainPair) -> np.ndarray:
        if min(pair.he.shape[:2]) < self.crop:
            height, width, _ = pair.he.shape
            raise InputError(
                f"a tile of {width} x {height} pixels",
                where=pair.id,
                expected=f"at least {self.crop} of each",
                hint="Train with a smaller --set crop=N",
            )
        mask = coarse_mask(pair.ihc) if pair.mask is None else pair.mask
        return np.concatenate([pair.he, pair.ihc, mask[..., None] * np.uint8(255)], axis=-1)


@dataclass(eq=False)
class StainTask:
    """Train the network on pairs.

    Args:
        model: The network.
        diffusion: The noise schedule.
        normalisation: Of the stain.
        crop: Pixels of a side of what the network sees.
        he_dropout: Probability of a hidden H&E.
        mask_weight: Weight of the mask's error.
        gamma: Largest weight of a squared error in the clean picture.
    """

    model: StainDiT
    diffusion: GaussianDiffusion
    normalisation: Normalisation
    crop: int
    he_dropout: float
    mask_weight: float
    gamma: float

    def loss(self, model: nn.Module, batch: TileBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The errors "image" and "mask" in v, weighted by the signal, and their sum "loss"."""
        seen = batch.crops(self.crop, generator)
        image = self.normalisation.normalise(seen.ihc)
        clean = image if self.model.mask is None else torch.cat([image, seen.mask], dim=1)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        t = torch.randint(len(self.diffusion.betas), (len(clean),), generator=generator).to(clean.device)
        dropped = (torch.rand(len(clean), generator=generator) < self.he_dropout).float().to(clean.device)
        noisy = self.diffusion.noisy(clean, noise, t)
        noisy_mask = None if self.model.mask is None else noisy[:, 3:]
        found = model(seen.he, noisy[:, :3], noisy_mask, t, seen.stain, dropped)
        weight = self.diffusion.clean_weight(t, self.gamma)
        errors = {"image": _error(found.image, image, weight)}
        if found.mask is not None:
            errors["mask"] = _error(found.mask, seen.mask, weight)
        return {"loss": errors["image"] + self.mask_weight * errors.get("mask", 0.0), **errors}


def _error(
    found: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"], weight: Float[Tensor, " b"]
) -> Float[Tensor, ""]:
    return ((found - clean).square().flatten(1).mean(1) * weight).mean()
