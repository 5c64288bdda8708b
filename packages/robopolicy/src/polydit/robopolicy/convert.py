"""Published checkpoints to our layout: the network as it is, and with a robot's data the whole policy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydit.core.checkpoints.checkpoint import INDEX
from polydit.core.errors import InputError
from polydit.robopolicy.checkpoint import NetworkCheckpoint

if TYPE_CHECKING:
    from diffusers import ModelMixin

    from polydit.robopolicy.data.readers import Dataset
    from polydit.robopolicy.language import Instructions
    from polydit.robopolicy.policy import RobotPolicy

_IMAGE_SIZES = {"rdt": 384, "mode": 224, "pad": 256}  # of the pictures that they were trained on


@dataclass(frozen=True, kw_only=True, eq=False)
class Published:
    """What a published file holds.

    Args:
        model: "rdt", "mode" or "pad".
        network: Its network, in our layout.
        settings: Arguments of the system's class.
    """

    model: str
    network: ModelMixin
    settings: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the network alone: no policy, which needs a robot's scales and instructions too."""
        self.network.save_pretrained(folder / "network")
        index = {
            "_class_name": NetworkCheckpoint.program,
            "model": self.model,
            "model_settings": self.settings,
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def policy(self, data: Dataset, language: Instructions, cameras: Sequence[str]) -> RobotPolicy:
        """The policy for a robot.

        States and actions reach the network in the units of the data, as in the published programs; the range of the
        data bounds the actions.

        Args:
            data: The robot's data set.
            language: Embeddings of its instructions.
            cameras: Cameras of the data set, in the order of the network's.

        Raises:
            InputError: The data, the embeddings or the cameras do not fit the network.
        """
        from polydit.robopolicy.normalize import Normalizer
        from polydit.robopolicy.policy import RobotPolicy

        known = data.info.cameras
        if unknown := [camera for camera in cameras if camera not in known]:
            raise InputError(
                f"the data have no camera {', '.join(unknown)}",
                where=str(data.path),
                expected=", ".join(known) or "none",
            )
        return RobotPolicy(
            self.network,
            Normalizer.of(data.statistics, state="identity", action="identity"),
            language,
            model=self.model,
            model_settings=self.settings,
            execute=self.execute,
            fps=data.info.fps,
            robot_type=data.info.robot_type,
            cameras=tuple(cameras),
            image_size=_IMAGE_SIZES[self.model],
        )

    @property
    def execute(self) -> int:
        """Actions of a chunk that the published programs execute: all, but of PAD's the first."""
        return 1 if self.model == "pad" else int(self.network.config.horizon)


def read_published(model: str, source: Path, *, heads: int | None = None) -> Published:
    """Reads a published checkpoint without running code from it.

    Args:
        model: "rdt", "mode" or "pad".
        source: The file, or for RDT and MoDE also its folder.
        heads: Attention heads of PAD, if the file does not tell.

    Raises:
        CheckpointError: A file is missing, not safe, damaged or of another kind.
        InputError: `heads` was given for another model.
    """
    if heads is not None and model != "pad":
        raise InputError(f"a checkpoint of {model} tells its number of heads", where="--num-heads")
    if model == "rdt":
        from polydit.robopolicy.rdt.convert import read_rdt

        policy = read_rdt(source)
        return Published(model=model, network=policy.network, settings=policy.settings)
    if model == "mode":
        from polydit.robopolicy.mode.convert import read_mode

        return Published(model=model, network=read_mode(source))
    from polydit.robopolicy.pad.convert import read_pad

    return Published(model=model, network=read_pad(source, heads=heads))
