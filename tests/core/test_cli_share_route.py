"""`polydit share` and `polydit route` on a checkpoint: the cache that they find, and what they write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from polydit.core.cli.main import polydit
from polydit.core.sampling.cache import CacheReport
from polydit.core.sampling.cache.routes import RouteTable
from polydit.pointgen.pipeline import PointPipeline, ShapeRequest

Invoke = Callable[..., Result]
DOMAIN = "pointgen"
SMALL = ("--num-samples", 2, "--request", "points=64", "--rounds", 1)


@pytest.fixture
def checkpoint(clouds: Path) -> Path:
    """Of 6 steps."""
    index = json.loads((clouds / "model_index.json").read_text())
    (clouds / "model_index.json").write_text(json.dumps({**index, "num_steps": 6}))
    return clouds


def test_sharing_is_found_measured_and_written(invoke: Invoke, checkpoint: Path) -> None:
    done = invoke(
        polydit, "share", DOMAIN, "--checkpoint", checkpoint, *SMALL, "--every", 2, "--write", "--json"
    )
    assert done.exit_code == 0, done.output
    *rows, summary = map(json.loads, done.stdout.splitlines())
    assert summary["num_steps"] == 6 and len(summary["full_steps"]) == 3 and summary["full_steps"][0] == 0
    steps = "+".join(map(str, summary["full_steps"]))
    assert summary["cache"] == f"ddt(full={steps},of=6,share=0.75)"
    caches = [row["cache"] for row in rows]
    assert caches == list(dict.fromkeys(["none", "ddt(full=0+2+4,of=6,share=0.75)", summary["cache"]]))
    assert rows[0]["moved"] == 0.0 and all(row["moved"] > 0.0 for row in rows[1:])
    assert summary["chosen"] in rows
    index = json.loads((checkpoint / "model_index.json").read_text())
    assert index["cache"] == summary["cache"] and index["num_steps"] == 6
    again = invoke(polydit, "share", DOMAIN, "--checkpoint", checkpoint, *SMALL, "--every", 2)
    assert again.exit_code == 0, again.output  # the checkpoint's own cache does not disturb what is recorded
    assert f"--cache '{summary['cache']}'" in again.stdout and "the checkpoint's own" in again.stdout


def test_a_table_of_every_step_is_left_out_by_name(invoke: Invoke, checkpoint: Path) -> None:
    done = invoke(polydit, "share", DOMAIN, "--checkpoint", checkpoint, *SMALL, "--every", 1)
    assert done.exit_code == 0, done.output
    assert "skips nothing in 6 steps" in done.stderr


def test_a_table_is_learnt_measured_and_written_whole(invoke: Invoke, checkpoint: Path) -> None:
    words = ("--checkpoint", checkpoint, *SMALL, "--iterations", 4, "--rate", 1.5, "--beta", 1.0)
    done = invoke(polydit, "route", DOMAIN, *words, "--out", "made/routes.json", "--write", "--json")
    assert done.exit_code == 0, done.output
    *rows, summary = map(json.loads, done.stdout.splitlines())
    routes = RouteTable.read("made/routes.json")
    assert summary["reused"] == routes.reused > 0.5 and routes.num_steps == summary["num_steps"] == 6
    assert [row["cache"] for row in rows] == ["none", "harmonica(table=made/routes.json)"]
    assert summary["chosen"] == rows[1] and rows[1]["moved"] > 0.0
    assert (
        json.loads((checkpoint / "model_index.json").read_text())["cache"] == "harmonica(table=routes.json)"
    )
    assert RouteTable.read(checkpoint / "routes.json") == routes
    pipeline = PointPipeline.from_pretrained(checkpoint)
    assert pipeline.cache == f"harmonica(table={checkpoint / 'routes.json'})"
    reports: list[CacheReport] = []
    request = ShapeRequest(id="a", category="chair", num_points=64, seed=0)
    pipeline([request], on_cache=reports.append)
    assert reports[0].num_steps == 6 and reports[0].skipped_steps
    pipeline.save_pretrained("copy")
    assert PointPipeline.from_pretrained("copy").cache == "harmonica(table=copy/routes.json)"


def test_ctrl_c_leaves_the_last_table_whole(
    invoke: Invoke, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polydit.core.cli.output import _Silent

    counted: list[int] = []

    def update(self: _Silent, n: int = 1) -> None:
        counted.append(n)
        if len(counted) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(_Silent, "update", update)
    words = ("--checkpoint", checkpoint, *SMALL, "--iterations", 12, "--out", "routes.json", "--json")
    done = invoke(polydit, "route", DOMAIN, *words)
    assert done.exit_code == 130 and "routes.json holds the table of trajectory 2" in done.stderr
    assert RouteTable.read("routes.json").num_steps == 6
    assert sorted(path.name for path in Path().glob("routes*")) == ["routes.json", "routes.json.training"]
    again = ("--checkpoint", checkpoint, *SMALL, "--iterations", 3, "--out", "routes.json", "--json")
    before = len(counted)
    done = invoke(polydit, "route", DOMAIN, *again)
    assert done.exit_code == 0, done.output
    trajectories = len(counted) - before - 2  # the others are the two settings that are measured
    assert trajectories == 1
    other = invoke(polydit, "route", DOMAIN, *again, "--beta", 1.0)
    assert other.exit_code == 2 and "beta (7e-08 before, 1.0 now)" in other.stderr
    Path("routes.json.training").unlink()
    other = invoke(polydit, "route", DOMAIN, *again)
    assert other.exit_code == 2 and "there is a table already" in other.stderr


def test_a_file_that_a_cache_cannot_name_is_refused(invoke: Invoke) -> None:
    done = invoke(polydit, "route", DOMAIN, "--out", "a,b.json")
    assert done.exit_code == 2 and "has a comma" in done.stderr
