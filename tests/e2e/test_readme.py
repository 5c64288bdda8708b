"""The commands of the READMEs are what a user can type: each is run, or its form is checked where it cannot be."""

from __future__ import annotations

import ast
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("[sp]*/*/README.md"))]
Shell = Callable[..., subprocess.CompletedProcess[str]]

QUICK = {  # what a reader waits for, a test need not
    "MOLGEN_SAMPLE_NUM_STEPS": "4",
    "MOLGEN_TRAIN_SETTINGS": " ".join(
        f"{stage}_training.{setting}=2"
        for stage in ("autoencoder", "denoiser")
        for setting in ("steps", "batch_size")
    ),
    "POLYDIT_CALIBRATE_ROUNDS": "1",
    "POLYDIT_CALIBRATE_STEPS": "4 8",
    "POINTGEN_TRAIN_SETTINGS": "training.steps=2 training.batch_size=4 network.width=48 network.depth=1",
    "POINTGEN_SAMPLE_NUM_STEPS": "3",
    "POINTGEN_EVALUATE_POINTS": "128",
    "VSTAIN_RUN_NUM_STEPS": "1",
    "VSTAIN_TRAIN_SETTINGS": "training.steps=2 training.batch_size=1 network.width=48",
    "ROBOPOLICY_TRAIN_SETTINGS": "training.steps=2 training.batch_size=4",
    "ROBOPOLICY_EVALUATE_MAX_STEPS": "40",
}
# They need a published checkpoint or serve without end; their own tests run them.
NOT_RUN = ("molgen convert", "pointgen convert", "robopolicy convert", "robopolicy serve")
SMALLER = re.compile(r"(--num|--num-samples|--episodes) \d+")
GROUPS = {name: f"polydit.{name}.cli:{name}" for name in ("molgen", "pointgen", "robopolicy", "vstain")}


def blocks(readme: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def lines(readme: Path) -> list[str]:
    return [line for block in blocks(readme, "sh") for line in block.splitlines() if line]


def is_tool(line: str) -> bool:
    return line.split()[0] in (*GROUPS, "polydit")


def nox_sessions() -> set[str]:
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f.name for f in functions if any(ast.unparse(d) == "nox.session" for d in f.decorator_list)}


def check_form(line: str) -> None:
    """Lines that install or start nox: what they name must exist."""
    if line.startswith("pip install "):
        for project in shlex.split(line)[2:]:
            folder, _, extras = project.rstrip("]").partition("[")
            metadata = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
            known = metadata.get("optional-dependencies", {})
            assert {name for name in extras.split(",") if name} <= known.keys()
    elif line.startswith(".venv/bin/nox -s "):
        assert set(line.split()[2:]) <= nox_sessions()
    else:
        assert line == "python3 -m venv .venv && .venv/bin/pip install nox"


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lines_that_install_have_the_right_form(readme: Path) -> None:
    assert lines(readme)
    for line in lines(readme):
        if not is_tool(line):
            check_form(line)


def check_options(line: str) -> None:
    """A line that is not run must at least be one that the command accepts."""
    program, name, *arguments = shlex.split(line)
    group = pkgutil.resolve_name(GROUPS[program])
    parent = click.Context(group, info_name=program)
    command = group.get_command(parent, name)
    assert command is not None
    command.make_context(name, arguments, parent=parent)


@pytest.mark.parametrize("program", [*GROUPS, "polydit"])
def test_commands_run_in_their_order(program: str, shell: Shell) -> None:
    """In one folder for each tool, each line once: a later line may use what an earlier one made."""
    every = dict.fromkeys(line for readme in READMES for line in lines(readme))
    for line in (line for line in every if line.split()[0] == program):
        if line.startswith(NOT_RUN):
            check_options(line)
            continue
        done = shell(SMALLER.sub(r"\1 4", line), **QUICK)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", sorted({block for readme in READMES for block in blocks(readme, "python")}))
def test_python_runs(block: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("program", GROUPS)
def test_the_readme_shows_every_command(program: str) -> None:
    words = [shlex.split(line) for line in filter(is_tool, lines(ROOT / "README.md"))]
    shown = {name for first, name, *_ in words if first == program}
    assert set(pkgutil.resolve_name(GROUPS[program]).lazy) <= shown
