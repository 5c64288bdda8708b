"""What `robopolicy data make` and `import` write. Standard library only: the command line reads its defaults here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from polydit.core.errors import InputError

Pictures = Literal["video", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeRecipe:
    """Demonstrations of scripted experts.

    Args:
        env: The simulator.
        tasks: Its tasks, without repetitions.
        episodes: Demonstrations of each.
        noise: Standard deviation of what is added to the executed actions; the clean action is stored.
        after_success: Steps recorded after the first one that ends in success.
        keep_failures: Keep episodes without success too.
        seed: The first layout of each task; those after it count up. Evaluations begin at 100,000.
        cameras: Cameras whose pictures are stored; none = states only.
        image_size: Side of the pictures in pixels.
        pictures: As mp4 videos, or as PNG in the tables.

    Raises:
        InputError: There is no task, one is named twice, or a number is out of range.
    """

    env: str = "metaworld"
    tasks: tuple[str, ...]
    episodes: int = 50
    noise: float = 0.2
    after_success: int = 0
    keep_failures: bool = False
    seed: int = 0
    cameras: tuple[str, ...] = ()
    image_size: int = 64
    pictures: Pictures = "video"

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise InputError("no task is named, or one twice", expected="each task once")
        if self.episodes < 1 or self.noise < 0 or self.after_success < 0 or self.seed < 0:
            raise InputError("a number of the recipe is negative, or there are no episodes")
        if self.cameras and self.pictures == "video" and self.image_size % 2:
            problem = f"pictures of {self.image_size} pixels a side cannot be a video"
            raise InputError(problem, expected="an even number", hint="Or store them with --pictures image")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRecipe:
    """A data set of another format or version, written anew.

    Args:
        source: Its path.
        pictures: As mp4 videos, or as PNG in the tables.
        robot_type: Name of the robot; "" = as the source says.
        fps: Of HDF5 episodes, see `HDF5Options`; likewise the next four.
        jpeg_order: How the colours of their JPEG pictures stand.
        wording: Which wording of their instructions is taken.
        still: Leading frames without a larger motion are dropped.
        min_frames: Shorter episodes are left out.
        limit: At most this many episodes of the source; None = all.
    """

    source: str
    pictures: Pictures = "video"
    robot_type: str = ""
    fps: float | None = None
    jpeg_order: Literal["bgr", "rgb"] = "bgr"
    wording: Literal["instruction", "simplified", "expanded", "mixed"] = "instruction"
    still: float = 0.0
    min_frames: int = 1
    limit: int | None = None
