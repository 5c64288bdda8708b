"""What every domain's `starter/recipe.py` shares: commands run as a user would, and the 16-bit copy that ships."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polydit.core.checkpoints.checkpoint import INDEX
from polydit.core.checkpoints.weights import save_half
from polydit.core.sampling.cache.named import CACHE_KEY, NONE

__all__ = ["run_command", "ship"]

_SOME_FAILED = 3


def run_command(program: str, *arguments: object) -> None:
    """Run an installed command of this environment; ends the process with its code if it fails.

    Code 3 is no failure: some items failed, which the figures count.
    """
    line = [str(Path(sys.executable).parent / program), *map(str, arguments)]
    done = subprocess.run(line, check=False)
    if done.returncode not in (0, _SOME_FAILED):
        sys.exit(done.returncode)


def ship(
    checkpoint: Path,
    folder: Path,
    *,
    networks: Mapping[str, Any],
    kept: Sequence[str] = ("scheduler",),
    cache: str = NONE,
) -> None:
    """Copy a checkpoint with its weights in 16 bits, all that a package needs and nothing of the training.

    Args:
        checkpoint: Folder that the training wrote.
        folder: Of the package's starter.
        networks: Its networks by the names of their folders.
        kept: Files and folders that are copied as they are.
        cache: What it suggests for its own number of steps.
    """
    for name, network in networks.items():
        save_half(network, folder / name)
    for name in kept:
        if (checkpoint / name).is_dir():
            shutil.copytree(checkpoint / name, folder / name, dirs_exist_ok=True)
        else:
            shutil.copyfile(checkpoint / name, folder / name)
    index = {**json.loads((checkpoint / INDEX).read_text()), CACHE_KEY: cache}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")
