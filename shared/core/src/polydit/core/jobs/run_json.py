"""run.json: what was asked for, with which settings and software, and how each call on the folder ended."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from polydit.core.errors import InputError
from polydit.core.jobs.files import atomic_file
from polydit.core.jobs.manifest import plain

NAME = "run.json"
FORMAT = "polydit-run/1"
_PACKAGES = ("polydit-core", "torch", "diffusers", "numpy", "safetensors")


@runtime_checkable
class Option(Protocol):
    """A value and where it came from: command line, environment, config file or default."""

    @property
    def value(self) -> Any: ...

    @property
    def source(self) -> str: ...


def read_run_json(path: Path) -> dict[str, Any]:
    """The content of a run.json.

    Raises:
        InputError: It is unreadable or of another format.
    """
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        where, expected = str(path.parent), f"a readable {NAME}"
        raise InputError("is not a run folder", where=where, expected=expected) from error
    if not isinstance(run, dict) or run.get("format") != FORMAT:
        raise InputError("is of another format", where=str(path), expected=f'"format": "{FORMAT}"')
    return run


def write_run_json(folder: Path, run: Mapping[str, Any]) -> None:
    """Replaces run.json in one step."""
    with atomic_file(folder / NAME) as handle:
        handle.write((json.dumps(run, indent=2, ensure_ascii=False) + "\n").encode())


def new_run_json(
    command: str,
    options: Mapping[str, Option],
    provenance: Mapping[str, Any],
    free: Collection[str],
    products: Sequence[str],
) -> dict[str, Any]:
    """The content for a run that starts now. `settings` are what a rerun has to repeat."""
    settings = {name: plain(option.value) for name, option in options.items() if name not in free}
    checkpoint = provenance.get("checkpoint")
    if isinstance(checkpoint, Mapping) and "sha256" in checkpoint:
        settings["checkpoint"] = f"sha256 {checkpoint['sha256']}"
    session = {
        "started": now(),
        "ended": None,
        "status": "running",
        "argv": sys.argv[1:],
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    return {
        "format": FORMAT,
        "command": command,
        "status": "running",
        "started": session["started"],
        "ended": None,
        "options": {n: {"value": plain(o.value), "source": str(o.source)} for n, o in options.items()},
        "settings": settings,
        "provenance": plain(provenance),
        "environment": _environment(),
        "products": list(products),
        "sessions": [session],
    }


def continued(earlier: Mapping[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """`run` as one more call on the folder that `earlier` describes.

    What earlier calls noted while they worked, such as the device, stays until a call notes it anew: one that finds
    nothing left to do has no device.
    """
    provenance = {**earlier["provenance"], **run["provenance"]}
    products = list(dict.fromkeys([*earlier["products"], *run["products"]]))
    sessions = [*earlier["sessions"], *run["sessions"]]
    kept = {"started": earlier["started"], "provenance": provenance}
    return run | kept | {"products": products, "sessions": sessions}


def refuse_other_settings(
    out: Path, earlier: Mapping[str, Any], run: Mapping[str, Any], growing: Collection[str]
) -> None:
    """Compares the command and the settings of two calls.

    Raises:
        InputError: They differ; the message names every differing key with both values.
    """
    before = {"command": earlier["command"], **earlier["settings"]}
    today = {"command": run["command"], **run["settings"]}
    differing = [
        f"{name.replace('_', '-')} ({before.get(name)} before, {today.get(name)} now)"
        for name in sorted(before.keys() | today.keys())
        if before.get(name) != today.get(name) and not (name in growing and today[name] > before[name])
    ]
    if differing:
        hint = "Repeat those settings to go on with it, choose another --out, or discard it with --overwrite."
        problem = f"holds a run with other settings: {', '.join(differing)}"
        raise InputError(problem, where=f"--out {out}", hint=hint)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _environment() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
