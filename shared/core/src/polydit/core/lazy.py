"""A package's public names, each imported when it is first used, so that a command line's help stays quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """What a package calls `__getattr__` and `__dir__` (PEP 562).

    Type checkers see the names through imports under `TYPE_CHECKING`::

        __getattr__, __dir__ = lazy_names(__name__, {"Pipeline": "house.room.pipeline"})

    Args:
        package: The `__name__` of the package.
        homes: Name -> the module that it is imported from.
    """

    def getattr_(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return getattr_, dir_
