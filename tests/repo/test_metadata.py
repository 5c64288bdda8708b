"""The distributions fit together, and what README and CI say is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT / "shared/core", *sorted(path.parent for path in ROOT.glob("[ap]*s/*/pyproject.toml"))]


def project(folder: Path) -> dict[str, object]:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_siblings_are_required_in_the_same_version(folder: Path) -> None:
    versions = {project(path)["name"]: project(path)["version"] for path in PROJECTS}
    for requirement in project(folder)["dependencies"]:
        if requirement.startswith("polydit-"):
            name, _, version = requirement.partition("==")
            assert versions[name] == version
    if folder.parent.name == "shared":
        assert not [name for name in project(folder)["dependencies"] if name.startswith("polydit-")]


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_users_get_ranges_and_developers_get_pins(folder: Path) -> None:
    foreign = [text for text in project(folder)["dependencies"] if not text.startswith("polydit-")]
    assert not [text for text in foreign if "==" in text or "+" in text]
    pinned = {line.split("==")[0].lower() for line in constraint_lines()}
    unpinned = {re.split(r"[<>=~\[;]", text)[0].strip().lower() for text in foreign} - pinned
    assert unpinned <= {"safetensors", "tqdm"}  # whose releases change no result


def constraint_lines() -> list[str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return [line for line in lines if line]


def test_constraints_pin_versions() -> None:
    assert "torch==2.13.0" in constraint_lines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in constraint_lines())


def test_ci_runs_the_commands_of_the_readme() -> None:
    """Both start from nothing with the same lines, and CI leaves no environment to lean on."""
    ci = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert ci[:3] == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "rm -rf .venv"]
    readme = (ROOT / "README.md").read_text()
    for line in ci[3:]:
        assert line in readme
    assert ci[-1] == ".venv/bin/nox -s tests"


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert {project(folder)["license"] for folder in PROJECTS} == {"Apache-2.0"}
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
