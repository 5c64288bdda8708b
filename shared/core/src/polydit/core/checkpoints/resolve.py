"""From what a user types after ``--checkpoint`` to a folder or file on this machine."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polydit.core.checkpoints.files import check_weights
from polydit.core.errors import CheckpointError

if TYPE_CHECKING:
    from polydit.core.cli.domains import CheckpointEntry

__all__ = ["resolve_checkpoint"]

_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def resolve_checkpoint(reference: str | None, *, entries: Sequence[CheckpointEntry]) -> Path:
    """Finds a checkpoint.

    Args:
        reference: The name of an entry, a folder, a file, ``hf://owner/repo[@revision]``, or None for the first entry.
        entries: What the domain knows by name.

    Returns:
        An existing file, or a folder whose weights are whole. Weights on the hub are downloaded once, into the hub's
        own cache.

    Raises:
        CheckpointError: There is no such checkpoint, it is on the hub and cannot be fetched now, or its files are
            damaged.
    """
    path = _find(reference, entries)
    if path.is_dir():
        check_weights(path)
    return path


def _find(reference: str | None, entries: Sequence[CheckpointEntry]) -> Path:
    if reference is None:
        if not entries:
            raise CheckpointError("there is no default checkpoint", hint="Name one with --checkpoint")
        reference = entries[0].name
    for entry in entries:
        if entry.name == reference:
            return _existing(entry.path, entry.name) if entry.path else _from_hub(entry.location)
    if reference.startswith("hf://"):
        return _from_hub(reference)
    path = Path(reference).expanduser()
    if path.exists():
        return path
    names = [entry.name for entry in entries]
    close = difflib.get_close_matches(reference, names, n=1)
    raise CheckpointError(
        "no checkpoint of this name, no such folder or file",
        where=reference,
        expected=f"one of {', '.join(names)}, a folder, a file or hf://owner/repo@revision"
        if names
        else None,
        hint=f"Did you mean {close[0]}?" if close else None,
    )


def _existing(path: Path, name: str) -> Path:
    if not path.exists():
        raise CheckpointError(f"the checkpoint {name} is not part of this installation", where=str(path))
    return path


def _from_hub(location: str) -> Path:
    """A snapshot from the local cache, else from the network."""
    match = _HUB.fullmatch(location)
    if not match:
        raise CheckpointError(
            "not a hub address", where=location, expected="hf://owner/repo or hf://owner/repo@revision"
        )
    repo, revision = match["repo"], match["revision"]
    # Imported here: names and folders need no hub client.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not in the cache yet
    try:
        return Path(snapshot_download(repo, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        command = f"hf download {repo}" + (f" --revision {revision}" if revision else "")
        raise CheckpointError(
            f"the weights are not on this machine and cannot be fetched now ({type(error).__name__})",
            where=location,
            hint=f"On a machine with network run: {command}",
        ) from None
