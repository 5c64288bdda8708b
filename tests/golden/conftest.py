"""Golden cases: where they lie, which adapter serves which system, and the list of cases that nobody serves."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType

import pytest
from torch import Tensor

from polydit.core.testing.golden import GoldenCase

HERE = Path(__file__).parent
NO_ADAPTER = "no adapter "


def case_files() -> list[Path]:
    """All cases by stem; a case in the folder that POLYDIT_GOLDEN_CASES names replaces ours of the same stem."""
    folders = [HERE / "cases", *(Path(f) for f in [os.environ.get("POLYDIT_GOLDEN_CASES")] if f)]
    for folder in folders:
        if not folder.is_dir():
            raise pytest.UsageError(f"POLYDIT_GOLDEN_CASES={folder}: no such folder")
    by_stem = {path.stem: path for folder in folders for path in sorted(folder.glob("*.json"))}
    return [by_stem[stem] for stem in sorted(by_stem)]


def load_adapter(system: str) -> ModuleType | None:
    """The module ``adapters/<system>.py``, or None."""
    path = HERE / "adapters" / f"{system}.py"
    if not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location(f"golden_adapter_{system.replace('-', '_')}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_file" in metafunc.fixturenames:
        metafunc.parametrize("case_file", case_files(), ids=lambda path: path.stem)


@pytest.fixture
def case(case_file: Path) -> GoldenCase:
    """The case of this test."""
    return GoldenCase.read(case_file)


@pytest.fixture
def adapter(case: GoldenCase, case_file: Path) -> Callable[[GoldenCase], Mapping[str, Tensor]]:
    """``outputs(case)`` of the system's adapter; a further case without one is skipped and listed in the summary."""
    module = load_adapter(case.system)
    if module is None:
        missing = pytest.fail if case_file.parent == HERE / "cases" else pytest.skip  # ours have theirs
        missing(f"{NO_ADAPTER}tests/golden/adapters/{case.system}.py")
    return module.outputs


@pytest.fixture
def relative(case: GoldenCase) -> Collection[str]:
    """Outputs that the adapter names in ``RELATIVE``, since the case's notes say to compare them relatively."""
    return getattr(load_adapter(case.system), "RELATIVE", ())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    names = [report.nodeid for report in skipped if NO_ADAPTER in str(report.longrepr)]
    if names:
        terminalreporter.section("golden cases without an adapter")
        for name in names:
            terminalreporter.line(name)
