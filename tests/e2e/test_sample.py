"""`molgen sample` as a newcomer runs it: its own process, the starter, no options that one must know."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("kind", "joined", "item"),
    [("molecule", "molecules.sdf", "mol-000003.sdf"), ("crystal", "crystals.cif", "crystal-000003.cif")],
)
def test_a_first_run(kind: str, joined: str, item: str, shell: Shell, tmp_path: Path) -> None:
    done = shell(f"molgen sample --kind {kind} --num-samples 4 --out run")
    assert done.returncode in (0, 3), done.stderr  # 3: a structure was absurd, which a random model may do
    assert done.stdout.splitlines()[-1].endswith(f"{kind}s in run")
    run = tmp_path / "run"
    assert (run / joined).stat().st_size
    assert "<html" in (run / "report.html").read_text()
    records = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    assert sorted(record["index"] for record in records) == [0, 1, 2, 3]
    assert (run / "items" / item).exists() or records[-1]["status"] == "failed"
    assert json.loads((run / "run.json").read_text())["provenance"]["checkpoint"]["licence"] == "Apache-2.0"

    again = shell(f"molgen sample --kind {kind} --num-samples 4 --out run --json")
    assert again.returncode == done.returncode
    (summary,) = [json.loads(line) for line in again.stdout.splitlines()]
    assert (summary["event"], summary["new"]) == ("summary", 0)


def test_a_wrong_option_is_one_sentence(shell: Shell, tmp_path: Path) -> None:
    done = shell("molgen sample --spacegroup 225 --out run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert "molecules have no space group" in done.stderr
    assert not (tmp_path / "run").exists()


def test_what_it_would_do(shell: Shell, tmp_path: Path) -> None:
    done = shell("molgen sample --num-samples 1000000 --out run --dry-run")
    assert done.returncode == 0, done.stderr
    assert "would make: 1000000 molecules" in done.stdout
    assert not (tmp_path / "run").exists()
