"""The cache that a checkpoint suggests; if it needs a table of routes, that lies in the checkpoint's folder.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polydit.core.errors import CheckpointError, InputError
from polydit.core.sampling.cache.named import AUTO, CACHE_KEY, NONE, CacheSetting

ROUTES = "routes.json"  # the table's name in the folder


def suggestion(index: Mapping[str, Any], num_steps: int) -> object:
    """What a checkpoint's index suggests for runs of so many steps.

    Its cache was chosen for its own number of steps. Who asks for more wants what they give, and fewer leave little to
    skip: in other runs it has no say.
    """
    return index.get(CACHE_KEY) if num_steps == index.get("num_steps") else None


def settled(asked: str, suggested: object, folder: Path) -> str:
    """What an option `--cache` amounts to.

    Args:
        asked: Its value.
        suggested: The `suggestion` of the checkpoint's index; empty = none.
        folder: The checkpoint.

    Raises:
        CheckpointError: "auto" was asked for, and the checkpoint suggests a cache that does not exist.
    """
    if asked != AUTO or not suggested:
        return NONE if asked == AUTO else asked
    try:
        return str(CacheSetting.parse(from_folder(str(suggested), folder)))
    except CheckpointError:
        raise
    except InputError as error:
        raise CheckpointError(str(error), where=str(folder)) from error


def from_folder(setting: str, folder: Path) -> str:
    """What an index says, for use: with the table's path in place of its name.

    Args:
        setting: A name with its options; what is none stays as it is, to be refused when it is used.
        folder: The checkpoint.

    Raises:
        CheckpointError: It names a file outside of the folder, or in a folder that the name of a cache cannot hold.
    """
    known = _with_table(setting)
    if known is None:
        return setting
    name = str(known.options["table"])
    if Path(name).name != name:
        problem = f"its cache takes its table from {name}"
        raise CheckpointError(problem, where=str(folder), expected="a file in the checkpoint's folder")
    return str(_taking(known, folder / name))


def into_folder(setting: str, folder: Path) -> str:
    """What an index is to say: with the table's name, and the table itself in the folder.

    Args:
        setting: A name with its options.
        folder: The checkpoint; it exists.

    Raises:
        InputError: The table cannot be read, or the folder's name has a comma.
    """
    known = _with_table(setting)
    if known is None:
        return setting
    from polydit.core.sampling.cache.routes import RouteTable

    _taking(known, folder / ROUTES)  # refused now, not when it is loaded
    RouteTable.read(str(known.options["table"])).write(folder / ROUTES)
    return str(_taking(known, Path(ROUTES)))


def _with_table(setting: str) -> CacheSetting | None:
    """The setting, if it is one that names a file."""
    try:
        known = CacheSetting.parse(setting)
    except InputError:
        return None
    return known if known.options.get("table") else None


def _taking(setting: CacheSetting, table: Path) -> CacheSetting:
    """With another table."""
    if "," in str(table):
        raise CheckpointError(
            "its path has a comma, which the name of a cache cannot hold", where=str(table.parent)
        )
    return CacheSetting(setting.name, {**setting.options, "table": str(table)})
