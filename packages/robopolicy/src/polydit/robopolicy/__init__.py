"""Diffusion-transformer policies that act: RDT, MoDE and PAD, their data, environments and evaluation.

    >>> from polydit.robopolicy import load
    >>> policy = load()
    >>> policy.reset(seed=0)
    >>> action = policy.select_action(observation)

What stands here is imported when it is first used, so that a command line's help stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polydit.core.lazy import lazy_names

if TYPE_CHECKING:
    from polydit.robopolicy.policy import RobotPolicy as RobotPolicy
    from polydit.robopolicy.serve.client import PolicyClient as PolicyClient

__all__ = ["PolicyClient", "RobotPolicy", "load"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PolicyClient": "polydit.robopolicy.serve.client",
        "RobotPolicy": "polydit.robopolicy.policy",
    },
)


def load(checkpoint: str | None = None) -> RobotPolicy:
    """The policy of a checkpoint, on the CPU in float32.

    Args:
        checkpoint: A name of `polydit list`, a folder, or `hf://owner/repo[@revision]`; None = the starter.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged.
    """
    from polydit.robopolicy.checkpoint import Checkpoint
    from polydit.robopolicy.policy import RobotPolicy

    return RobotPolicy.from_pretrained(Checkpoint.find(checkpoint).path)
