"""3D point clouds from a diffusion transformer over voxels.

    >>> from polydit.pointgen import ShapeRequest, load
    >>> pipeline = load()
    >>> clouds = pipeline([ShapeRequest(id="a", category="chair", num_points=2048, seed=1)])

What stands here is imported when it is first used, so that a command line's help stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polydit.core.lazy import lazy_names

if TYPE_CHECKING:
    from polydit.pointgen.cloud import Cloud as Cloud
    from polydit.pointgen.pipeline import PointPipeline as PointPipeline
    from polydit.pointgen.pipeline import ShapeRequest as ShapeRequest

__all__ = ["Cloud", "PointPipeline", "ShapeRequest", "load"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Cloud": "polydit.pointgen.cloud",
        "PointPipeline": "polydit.pointgen.pipeline",
        "ShapeRequest": "polydit.pointgen.pipeline",
    },
)


def load(checkpoint: str | None = None) -> PointPipeline:
    """The generator of a checkpoint, on the CPU in float32.

    Args:
        checkpoint: A name of `polydit list`, a folder, or `hf://owner/repo[@revision]`; None = the starter.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged.
    """
    from polydit.pointgen.checkpoint import Checkpoint
    from polydit.pointgen.pipeline import PointPipeline

    return PointPipeline.from_pretrained(Checkpoint.find(checkpoint).path)
