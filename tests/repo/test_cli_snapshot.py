"""The command lines change only on purpose: names, types and defaults of every option are kept in a file.

After a change that is meant: python tests/repo/test_cli_snapshot.py
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest

SNAPSHOT = Path(__file__).with_name("cli_snapshot.json")
PROGRAMS = ("molgen", "pointgen", "polydit", "robopolicy", "vstain")


def described(info: dict[str, Any], path: str) -> dict[str, dict[str, str]]:
    """``{"molgen sample": {"--seed": "integer range 0..9, default 0"}}`` of a command and those below it."""
    # click keeps the first context's help option, so its names depend on what ran before
    params = [param for param in info["params"] if "--help" not in param["opts"]]
    found = {path: {" ".join(param["opts"]): described_option(param) for param in params}}
    for name, child in info.get("commands", {}).items():
        found |= described(child, f"{path} {name}")
    return found


def described_option(info: dict[str, Any]) -> str:
    kind = info["type"]
    text = str(kind["name"])
    if kind.get("choices"):
        text += " " + "|".join(kind["choices"])
    if "min" in kind:
        text += f" {kind['min']}..{'' if kind['max'] is None else kind['max']}"
    default = info.get("default")
    if default is True or (default is not None and not info.get("is_flag")):
        text += f", default {default}"
    return text + ", required" * info["required"] + ", repeatable" * info["multiple"]


def current(program: str) -> dict[str, dict[str, str]]:
    (point,) = entry_points(group="console_scripts", name=program)
    group = point.load()
    info = group.to_info_dict(click.Context(group, info_name=program))
    return described(info, program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_command_lines_are_as_recorded(program: str) -> None:
    recorded = json.loads(SNAPSHOT.read_text())[program]
    assert current(program) == recorded, f"If this is meant, run: python {Path(__file__).name}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_is_explained(program: str) -> None:
    (point,) = entry_points(group="console_scripts", name=program)
    group = point.load()
    info = group.to_info_dict(click.Context(group, info_name=program))
    silent = [f"{path} {option}" for path, option in without_help(info, program)]
    assert not silent


def without_help(info: dict[str, Any], path: str) -> list[tuple[str, str]]:
    options = [param for param in info["params"] if param["param_type_name"] == "option"]
    found = [(path, param["opts"][0]) for param in options if not param["help"]]
    found += [(path, "")] if not info["help"] else []
    for name, child in info.get("commands", {}).items():
        found += without_help(child, f"{path} {name}")
    return found


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps({program: current(program) for program in PROGRAMS}, indent=1) + "\n")
    sys.stdout.write(f"wrote {SNAPSHOT}\n")
