"""Style is checked with the tests; `nox -s lint -- --fix` repairs most of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "line", [("check", "--output-format=concise"), ("format", "--check")], ids=lambda line: line[0]
)
def test_ruff_is_content(line: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *line, "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nRun: nox -s lint -- --fix"
