"""The settings of a run, with their defaults; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from polydit.core.sampling.cache.named import NONE
from polydit.vstain.data.recipe import STAINS

Blend = Literal["crop", "feather"]
PyramidFormat = Literal["ome", "tiff"]

# Endings of the files that can be stained.
IMAGES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
TIFFS: Final = frozenset({".tif", ".tiff"})
VENDORS: Final = frozenset(
    {".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi", ".dcm"}
)
SUFFIXES: Final = IMAGES | TIFFS | VENDORS

SLIDE_ENDINGS: Final[dict[PyramidFormat, str]] = {"ome": ".ome.tif", "tiff": ".tif"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StainSettings:
    """What decides the pixels of a run, beside its inputs and seeds.

    Args:
        stain: Which stain.
        model: Name and digest of the checkpoint, for the files themselves.
        digest: Of the checkpoint.
        num_steps: Of the sampler.
        guidance_scale: Of the sampler.
        model_mpp: Microns per pixel that the network was trained at.
        mpp: Of all inputs, in place of what their files say; None = as they say.
        patch: Side of what the network is given at once, in pixels.
        margin: Pixels round the core of a patch.
        blend: How tiles are put together.
        mask: Whether positive cells are outlined too.
        skip: Whether tiles without tissue are skipped.
        format: Of a slide's pyramid.
        precision: Of the network.
        cache: Steps of the sampler that are forecast.
        multiple: Pixels that the sides of what the network is given are multiples of.
    """

    stain: str
    model: str
    digest: str
    num_steps: int
    guidance_scale: float
    model_mpp: float
    mpp: float | None = None
    patch: int = 256
    margin: int = 32
    blend: Blend = "crop"
    mask: bool = True
    skip: bool = True
    format: PyramidFormat = "ome"
    precision: str = "fp32"
    cache: str = NONE
    multiple: int = 8


BAND = 512  # pixels of a side that a procedural slide is rendered in at once


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideRecipe:
    """A procedural slide.

    Args:
        size: Pixels of each side.
        stain: One of `STAINS`.
        seed: Which slide.
        coverage: Share of the plane that is tissue, 0..1.
        format: Of the H&E's and the stain's pyramids; the mask is a plain one.
    """

    size: int = 8192
    stain: str = STAINS[0]
    seed: int = 0
    coverage: float = 0.35
    format: PyramidFormat = "tiff"

    @property
    def bands(self) -> int:
        """Rows of pieces that are rendered."""
        return -(-self.size // BAND)
