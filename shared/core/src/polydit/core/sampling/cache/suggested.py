"""The cache that a checkpoint suggests; if it needs a table of routes, that lies in the checkpoint's folder.

Importing this module imports no torch.
"""

from __future__ import annotations

from pathlib import Path

from polydit.core.errors import CheckpointError, InputError
from polydit.core.sampling.cache.named import AUTO, NONE, CacheSetting

ROUTES = "routes.json"  # the table's name in the folder


def settled(asked: str, suggested: object, folder: Path) -> str:
    """What an option `--cache` amounts to.

    Args:
        asked: Its value.
        suggested: What the checkpoint's index says; empty = none.
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
