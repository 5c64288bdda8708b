"""A checkpoint of vstain as the command line sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from polydit.core.checkpoints import checkpoint
from polydit.core.errors import InputError
from polydit.vstain.domain import DOMAIN

if TYPE_CHECKING:
    from polydit.vstain.baseline.pipeline import GanPipeline
    from polydit.vstain.pipeline import StainPipeline

DIFFUSION, BASELINE = "StainPipeline", "GanPipeline"


class Checkpoint(checkpoint.Checkpoint):
    """A checkpoint folder of the diffusion pipeline or of the baseline; `find` raises CheckpointError for others."""

    domain = DOMAIN
    program = (DIFFUSION, BASELINE)
    required = frozenset({"stains", "mpp"})

    @property
    def is_baseline(self) -> bool:
        """Whether it is the baseline's, which takes one step, and no noise."""
        return bool(self.index["_class_name"] == BASELINE)

    @property
    def stains(self) -> tuple[str, ...]:
        """What it makes."""
        return tuple(str(name) for name in self.index["stains"])

    @property
    def mpp(self) -> float:
        """Microns per pixel of what it takes and makes."""
        return float(self.index["mpp"])

    @property
    def num_steps(self) -> int:
        """The number of steps it suggests."""
        return int(self.index.get("num_steps", 1))

    @property
    def guidance_scale(self) -> float:
        """The guidance scale it suggests."""
        return float(self.index.get("guidance_scale", 1.0))

    @property
    def has_mask(self) -> bool:
        """Whether it makes masks as well."""
        if self.is_baseline:
            return False
        config = json.loads((self.path / "network" / "config.json").read_text())
        return bool(config["mask_depth"])

    def chosen(self, stain: str | None) -> str:
        """The stain that follows `--stain`; a checkpoint of one stain needs no choice.

        Raises:
            InputError: It makes no such stain, or several and none is chosen.
        """
        if stain is None and len(self.stains) == 1:
            return self.stains[0]
        if stain is None or stain.lower() not in self.stains:
            problem = (
                f"checkpoint {self.name} makes several stains"
                if stain is None
                else f"checkpoint {self.name} makes no {stain!r}"
            )
            raise InputError(problem, where="--stain", expected=" or ".join(self.stains))
        return stain.lower()

    def load(self) -> StainPipeline | GanPipeline:
        """The pipeline, on the CPU in float32."""
        if self.is_baseline:
            from polydit.vstain.baseline.pipeline import GanPipeline

            return GanPipeline.from_pretrained(self.path)
        from polydit.vstain.pipeline import StainPipeline

        return StainPipeline.from_pretrained(self.path)

    def facts(self) -> dict[str, Any]:
        """What it makes, and how it samples."""
        return {
            "stains": list(self.stains),
            "mpp": self.mpp,
            "mask": self.has_mask,
            "num_steps": self.num_steps,
            "guidance_scale": self.guidance_scale,
        }
