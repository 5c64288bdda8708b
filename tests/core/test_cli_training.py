"""A command that trains: its folder, its progress, its plan, and what a second call may change."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from polydit.core.cli.config import apply_settings
from polydit.core.cli.group import DomainGroup
from polydit.core.cli.training import Tell, TrainingCall, TrainingJob, data_option, training_options

Train = Callable[..., Result]


@dataclass(frozen=True, kw_only=True)
class Network:
    width: int = 8


@dataclass(frozen=True, kw_only=True)
class Recipe:
    steps: int = 2
    network: Network = field(default_factory=Network)


@dataclass(frozen=True, kw_only=True)
class Mean(TrainingJob[Recipe]):
    """Learns the mean of some lines."""

    command = "demo train"
    next_command = "demo sample"
    products = ("mean.txt",)

    stage: str
    numbers: list[float]

    def provenance(self) -> dict[str, Any]:
        return {"numbers": len(self.numbers)}

    def fit(self, tell: Tell) -> Path:
        for step in range(1, self.recipe.steps + 1):
            scalars = {"step": step, "loss": 1 / step, "seconds_per_step": 0.5}
            tell(step, self.recipe.steps, scalars, stage=self.stage)
        path = self.call.out / "mean.txt"
        path.write_text(str(sum(self.numbers) / len(self.numbers)))
        return path

    def plan(self) -> tuple[dict[str, Any], list[str]]:
        return {"numbers": len(self.numbers)}, [f"{len(self.numbers)} numbers"]


@click.group(name="demo", cls=DomainGroup)
def demo() -> None:
    """A domain whose network is one number."""


@demo.command()
@data_option(help="Numbers, one a line.")
@click.option("--stage", default="", help="Name of the only stage.")
@training_options(things="numbers")
def train(data: Path, stage: str, call: TrainingCall) -> None:
    """Learn the mean."""
    numbers = [float(line) for line in data.read_text().splitlines()][: call.limit]
    Mean(call=call, recipe=apply_settings(Recipe(), call.settings), stage=stage, numbers=numbers).run()


@pytest.fixture
def run(invoke: Train, tmp_path: Path) -> Train:
    (tmp_path / "data.txt").write_text("1\n2\n6\n")
    return lambda *words: invoke(demo, "train", "--data", "data.txt", "--out", "out", *words)


def test_it_trains_and_says_what_comes_next(run: Train, tmp_path: Path) -> None:
    done = run()
    assert done.exit_code == 0, done.output
    assert done.stderr == "1/2  loss 1  0.50 s/step\n2/2  loss 0.5  0.50 s/step\n"
    next_command = "demo sample --checkpoint out/mean.txt --out run/"
    assert done.stdout == f"next: {next_command}\nout/mean.txt\n"
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["command"], record["status"], record["provenance"]["numbers"]) == ("demo train", "done", 3)
    assert record["options"]["data"] == {"value": "data.txt", "source": "command line"}
    assert record["products"] == ["mean.txt"]


def test_every_step_is_an_item_for_a_program(run: Train) -> None:
    *items, end = map(json.loads, run("--json", "--quiet", "--stage", "second").stdout.splitlines())
    assert items[1] == {"stage": "second", "step": 2, "loss": 0.5, "seconds_per_step": 0.5}
    assert (end["event"], end["checkpoint"]) == ("summary", "out/mean.txt")
    assert run("--stage", "second", "--overwrite").stderr.startswith("second 1/2  loss 1")


def test_a_dry_run_shows_data_and_recipe_and_writes_nothing(run: Train, tmp_path: Path) -> None:
    done = run("--dry-run", "--limit", 2, "--set", "network.width=4")
    assert done.stdout.splitlines() == ["2 numbers", "  steps = 2", "  network.width = 4"]
    plan = json.loads(run("--dry-run", "--json").stdout)
    assert plan["dry_run"] is True
    assert (plan["numbers"], plan["recipe"]) == (3, {"steps": 2, "network": {"width": 8}})
    assert not (tmp_path / "out").exists()


def test_a_second_call_goes_on_with_the_same_recipe_and_data_only(run: Train, tmp_path: Path) -> None:
    assert run("--limit", 2).exit_code == 0
    again = run("--limit", 2, "--device", "cpu")
    assert again.exit_code == 0, again.output
    for words, named in ((["--limit", 3], "limit"), (["--limit", 2, "--set", "steps=3"], "settings.steps")):
        refused = run(*words)
        assert refused.exit_code == 2 and named in refused.stderr
    assert run("--limit", 3, "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "mean.txt").read_text() == "3.0"
    repeated = run("--config", "out/run.json", "--dry-run")
    assert repeated.stdout.startswith("3 numbers")


def test_the_help_says_what_the_limit_counts(run: Train) -> None:
    assert "At most this many numbers." in " ".join(run("--help").stdout.split())
