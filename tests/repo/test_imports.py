"""Imports point one way: apps -> packages -> core. A package never imports another one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(
    path.parent
    for folder in ("shared", "packages", "apps")
    for path in ROOT.glob(f"{folder}/*/pyproject.toml")
)
DOMAINS = [path.name for path in PROJECTS if path.parent.name == "packages"]
MAX_LINES = 500


def sources(project: Path) -> list[Path]:
    return sorted(project.glob("src/**/*.py"))


def imported_parts(file: Path) -> Iterator[str]:
    """``core``, ``molgen``, ... of every import of ``polydit.<part>`` in the file, wherever it stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("polydit."))


def allowed(project: Path) -> set[str]:
    own = {path.name for path in project.glob("src/polydit/*/")}
    return own | {"shared": set(), "packages": {"core"}, "apps": {"core", *DOMAINS}}[project.parent.name]


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_down(project: Path) -> None:
    files = sources(project)
    assert files, f"{project} has no sources"
    wrong = {
        f"{file.relative_to(ROOT)} imports polydit.{part}"
        for file in files
        for part in imported_parts(file)
        if part not in allowed(project)
    }
    assert not wrong


def test_the_import_reader_sees_every_form(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("import polydit.a\nfrom polydit import b\ndef f():\n    from polydit.c.d import e\n")
    assert sorted(imported_parts(file)) == ["a", "b", "c"]


def test_the_core_knows_no_domain() -> None:
    names = re.compile(rf"\b({'|'.join(DOMAINS)})\b", re.IGNORECASE)
    wrong = {
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in sources(ROOT / "shared/core")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if names.search(line)
    }
    assert not wrong


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_polydit_stays_a_namespace(project: Path) -> None:
    """One ``polydit/__init__.py`` hides the other distributions of an editable install."""
    assert (project / "src/polydit").is_dir()
    assert not (project / "src/polydit/__init__.py").exists()
    assert list((project / "src/polydit").glob("*/__init__.py"))


def test_files_stay_short() -> None:
    long = {
        f"{file.relative_to(ROOT)}: {lines} lines"
        for project in PROJECTS
        for file in sources(project)
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) >= MAX_LINES
    }
    assert not long
