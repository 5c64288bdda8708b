"""What a domain package says about itself: found through the entry points ``polydit.domains``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_PACKAGE = "package://"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointEntry:
    """A checkpoint that a domain knows by name.

    ``location`` is ``package://polydit.NAME/starter`` (a folder inside an installed package) or
    ``hf://owner/repo[@revision]``.
    """

    name: str
    location: str
    licence: str
    parameters: int  # 0 = not stated
    summary: str
    limits: str = ""  # what it is not for, in one sentence

    @property
    def path(self) -> Path | None:
        """The folder or file inside the installed package; None for a checkpoint on the hub."""
        if not self.location.startswith(_PACKAGE):
            return None
        from importlib.resources import files

        package, _, inner = self.location.removeprefix(_PACKAGE).partition("/")
        return Path(str(files(package))) / inner

    def is_here(self) -> bool:
        """Whether the weights came with the package: a file, or a folder as diffusers saves a pipeline."""
        path = self.path
        return path is not None and (path.is_file() or (path / "model_index.json").is_file())

    def record(self) -> dict[str, str | int | None]:
        """One row of a list of checkpoints; the parameters are counted where the weights are here."""
        from polydit.core.checkpoints.folder import component_sizes

        here = self.is_here()
        counted = sum(component_sizes(self.path).values()) if here and self.path else self.parameters
        return {
            "checkpoint": self.name,
            "here": "yes" if here else "no",
            "parameters": counted or None,
            "licence": self.licence,
            "summary": self.summary,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of ``polydit doctor``; ``fix`` is the command that mends it."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""

    def record(self) -> dict[str, str]:
        """The finding as one JSON object."""
        return {"name": self.name, "status": self.status, "detail": self.detail, "fix": self.fix}


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One domain package.

    ``checks`` are ``"module:function"`` for ``polydit doctor``: each function takes nothing and returns one
    ``Finding``. The first entry of ``checkpoints`` is the default. ``calibration`` is the ``"module:function"`` of
    ``polydit calibrate``: (checkpoint or None, number of items, request) to a `Checkpoint` and a `Sampler`.
    """

    name: str
    summary: str
    distribution: str
    command: str
    checkpoints: tuple[CheckpointEntry, ...] = ()
    checks: tuple[str, ...] = ()
    calibration: str = ""


def installed_domains() -> list[Domain]:
    """The domains of this environment, by name."""
    from importlib.metadata import entry_points

    return sorted(
        (point.load() for point in entry_points(group="polydit.domains")), key=lambda domain: domain.name
    )
