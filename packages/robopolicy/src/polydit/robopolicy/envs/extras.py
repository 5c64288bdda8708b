"""Simulators are extras of the package: imported when first used, and if missing, named with the command."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from polydit.core.errors import MissingExtraError, PolyditError

_GL_PACKAGES = {"libGL": "libgl1", "libEGL": "libegl1", "libOSMesa": "libosmesa6", "libglib": "libglib2.0-0"}


def import_extra(module: str, *, extra: str) -> ModuleType:
    """A module of a simulator.

    Args:
        module: Its full name.
        extra: The extra of this package that installs it.

    Raises:
        MissingExtraError: It is not installed; the hint is the pip command.
        PolyditError: It is, but a library of the system that it needs is not.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package, purpose = str(error.name), f"The environment {extra!r}"
        raise MissingExtraError(package, f"polydit-robopolicy[{extra}]", purpose=purpose) from error
    except ImportError as error:
        packages = [package for library, package in _GL_PACKAGES.items() if library in str(error)]
        hint = f"Install it with: apt-get install {packages[0]}" if packages else None
        raise PolyditError(f"{module} cannot be loaded ({error})", hint=hint) from error
