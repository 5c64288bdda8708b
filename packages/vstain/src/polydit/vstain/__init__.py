"""Virtual staining of H&E tiles and whole slides with a diffusion transformer.

    >>> from polydit.vstain import StainRequest, load
    >>> pipeline = load()
    >>> stained, = pipeline([StainRequest.of("tile", he, stain="ck", seed=1)])

What stands here is imported when it is first used, so that a command line's help stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polydit.core.lazy import lazy_names

if TYPE_CHECKING:
    from polydit.vstain.pairs import StainPair as StainPair
    from polydit.vstain.pipeline import StainPipeline as StainPipeline
    from polydit.vstain.tiles import Stained as Stained
    from polydit.vstain.tiles import StainRequest as StainRequest

__all__ = ["StainPair", "StainPipeline", "StainRequest", "Stained", "load"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "StainPair": "polydit.vstain.pairs",
        "StainPipeline": "polydit.vstain.pipeline",
        "StainRequest": "polydit.vstain.tiles",
        "Stained": "polydit.vstain.tiles",
    },
)


def load(checkpoint: str | None = None) -> StainPipeline:
    """The generator of a checkpoint, on the CPU in float32.

    Args:
        checkpoint: A name of `polydit list`, a folder, or `hf://owner/repo[@revision]`; None = the starter.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged.
    """
    from polydit.vstain.checkpoint import Checkpoint
    from polydit.vstain.pipeline import StainPipeline

    return StainPipeline.from_pretrained(Checkpoint.find(checkpoint).path)
