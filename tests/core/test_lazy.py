"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGE = """from polydit.core.lazy import lazy_names

__all__ = ["Heavy", "light"]
__getattr__, __dir__ = lazy_names(__name__, {"Heavy": "tool.heavy"})


def light() -> None: ...
"""
USE = """
import sys, tool
assert "Heavy" in dir(tool) and "light" in dir(tool) and "tool.heavy" not in sys.modules
assert tool.Heavy.weight == 3
from tool import Heavy
try:
    tool.Haevy
except AttributeError as error:
    assert str(error) == "module 'tool' has no attribute 'Haevy'", error
else:
    raise SystemExit("a name that is not there was found")
"""


def test_names_are_listed_before_they_are_imported(tmp_path: Path) -> None:
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "__init__.py").write_text(PACKAGE)
    (tmp_path / "tool" / "heavy.py").write_text("class Heavy:\n    weight = 3\n")
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
