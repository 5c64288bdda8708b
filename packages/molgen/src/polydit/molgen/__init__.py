"""Molecules and crystals from one all-atom latent diffusion transformer.

    >>> from polydit.molgen import SampleRequest, load
    >>> pipeline = load()
    >>> structures = pipeline([SampleRequest(id="a", kind="molecule", num_atoms=9, seed=1)])

What stands here is imported when it is first used, so that a command line's help stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polydit.core.lazy import lazy_names

if TYPE_CHECKING:
    from polydit.molgen.data.structure import Structure as Structure
    from polydit.molgen.pipeline import MolgenPipeline as MolgenPipeline
    from polydit.molgen.pipeline import SampleRequest as SampleRequest

__all__ = ["MolgenPipeline", "SampleRequest", "Structure", "load"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "MolgenPipeline": "polydit.molgen.pipeline",
        "SampleRequest": "polydit.molgen.pipeline",
        "Structure": "polydit.molgen.data.structure",
    },
)


def load(checkpoint: str | None = None) -> MolgenPipeline:
    """The generator of a checkpoint, on the CPU in float32.

    Args:
        checkpoint: A name of `polydit list`, a folder, or `hf://owner/repo[@revision]`; None = the starter.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged.
    """
    from polydit.molgen.checkpoint import Checkpoint
    from polydit.molgen.pipeline import MolgenPipeline

    return MolgenPipeline.from_pretrained(Checkpoint.find(checkpoint).path)
