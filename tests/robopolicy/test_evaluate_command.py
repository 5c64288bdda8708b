"""`robopolicy evaluate`: what it writes, what it refuses, and how a run goes on."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from polydit.core.errors import InputError
from polydit.core.figure import wilson_interval
from polydit.core.jobs import read_run
from polydit.core.testing.pages import page_problems
from polydit.robopolicy.checkpoint import Checkpoint
from polydit.robopolicy.cli import robopolicy
from polydit.robopolicy.envs import instruction, make_env, tasks
from polydit.robopolicy.evaluate.choice import PolicyChoice
from polydit.robopolicy.evaluate.rollout import rollout
from polydit.robopolicy.report import write_report

Evaluate = Callable[..., Result]
TASK = "drawer-open-v3"


@pytest.fixture
def evaluate(invoke: Callable[..., Result]) -> Evaluate:
    """``evaluate("--policy", "zero", "--out", out)``: in this process; its workers are processes of their own."""

    def call(*arguments: object, **environment: str) -> Result:
        return invoke(robopolicy, "evaluate", *arguments, **environment)

    return call


def ran(result: Result, code: int = 0) -> Result:
    assert result.exit_code == code, result.output
    return result


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "episodes.csv").open() as handle:
        return list(csv.DictReader(handle))


# ---------------------------------------------------------------------------------------------------------
# What it writes.


def test_a_baseline_leaves_rows_figures_and_a_page(evaluate: Evaluate, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = ran(evaluate("--task", TASK, "--policy", "expert", "--episodes", 4, "--plots", 2, "--out", out))
    assert result.stdout.splitlines()[-1] == f"4 episodes in {out}"
    assert "100.00 %" in result.stdout and "4/4" in result.stdout
    assert [(row["task"], row["seed"], row["success"]) for row in rows(out)] == [
        (TASK, str(100_000 + k), "1") for k in range(4)
    ]
    assert all(float(row["inference_ms"]) > 0 and 30 < int(row["steps"]) < 500 for row in rows(out))
    figures = json.loads((out / "figures.json").read_text())
    success = figures["tasks"][TASK]["success"]
    assert (success["numerator"], success["denominator"]) == (4, 4)
    assert success["interval"] == pytest.approx(wilson_interval(4, 4))
    assert (figures["policy"], figures["mean_success_over_tasks"]) == ("expert", 1.0)
    assert sorted(path.name for path in (out / "items").iterdir()) == [f"{TASK}-10000{k}.csv" for k in (0, 1)]
    assert read_run(out).run["status"] == "done"

    html = (out / "report.html").read_text()
    assert page_problems(html) == []
    for text in (TASK, "Wilson", f"{TASK}, seed 100001: success", "expert", "command line", "in simulation"):
        assert text in html, text
    assert html.count('class="plot"') == 2


def test_several_tasks_have_a_mean(evaluate: Evaluate, tmp_path: Path) -> None:
    chosen = ("--task", TASK, "--task", "reach-v3", "--policy", "zero", "--max-steps", 5)
    result = ran(evaluate(*chosen, "--episodes", 2, "--no-report", "--out", tmp_path))
    assert "all tasks" in result.stdout and not (tmp_path / "report.html").exists()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert list(figures["tasks"]) == [TASK, "reach-v3"]
    assert (figures["mean_success_over_tasks"], figures["all"]["success"]["denominator"]) == (0.0, 4)
    assert {row["steps"] for row in rows(tmp_path)} == {"5"}


def test_json_is_one_object_per_episode_and_a_summary(evaluate: Evaluate, tmp_path: Path) -> None:
    chosen = ("--task", TASK, "--policy", "zero", "--max-steps", 3, "--episodes", 2)
    *records, summary = map(
        json.loads, ran(evaluate(*chosen, "--json", "--out", tmp_path)).stdout.splitlines()
    )
    assert records == lines(tmp_path)
    assert (summary["event"], summary["done"], summary["new"], summary["failed"]) == ("summary", 2, 2, 0)
    assert summary["tasks"][TASK]["success"]["value"] == 0.0


def test_a_film_of_the_first_episode(evaluate: Evaluate, tmp_path: Path) -> None:
    import av

    chosen = ("--task", TASK, "--policy", "expert", "--max-steps", 6, "--episodes", 2)
    ran(evaluate(*chosen, "--video", 1, "--plots", 0, "--out", tmp_path))
    (film,) = (tmp_path / "items").iterdir()
    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.metadata["comment"] == f"metaworld {TASK}, seed 100000, policy expert"
    assert len(frames) == 7 and np.ptp(frames[0]) > 100
    html = (tmp_path / "report.html").read_text()
    assert page_problems(html) == []
    assert f'href="items/{film.name}"' in html and "data:image/jpeg;base64," in html and "no success" in html

    film.write_bytes(film.read_bytes()[:2000])  # damaged since
    html = write_report(tmp_path).read_text()
    assert page_problems(html) == [] and "the video cannot be decoded" in html


def test_a_dry_run_says_what_it_costs_and_writes_nothing(evaluate: Evaluate, tmp_path: Path) -> None:
    out = tmp_path / "run"
    chosen = (
        "--task",
        TASK,
        "--policy",
        "random",
        "--episodes",
        7,
        "--workers",
        2,
        "--out",
        out,
        "--dry-run",
    )
    plan = json.loads(ran(evaluate(*chosen, "--json")).stdout)
    assert (plan["missing"], plan["tasks"], plan["workers"]) == (7, [TASK], 2)
    assert plan["estimated_seconds"] > 0 and plan["estimated_memory_bytes"] > 1e8
    assert "at most" in ran(evaluate(*chosen)).stdout
    assert not out.exists()


def test_no_episode_is_a_whole_run(evaluate: Evaluate, tmp_path: Path) -> None:
    ran(evaluate("--tasks", "all", "--policy", "expert", "--episodes", 0, "--out", tmp_path))
    assert (rows(tmp_path), read_run(tmp_path).run["status"]) == ([], "done")
    assert page_problems((tmp_path / "report.html").read_text()) == []
    assert read_run(tmp_path).options["task"] == list(tasks("metaworld"))


# ---------------------------------------------------------------------------------------------------------
# How a run goes on.


def test_a_rerun_does_what_is_missing_and_more_episodes_add_to_it(evaluate: Evaluate, tmp_path: Path) -> None:
    chosen = ("--task", TASK, "--policy", "random", "--max-steps", 4, "--no-report", "--out", tmp_path)
    ran(evaluate(*chosen, "--episodes", 2))
    before = lines(tmp_path)
    assert "Nothing left to do" in ran(evaluate(*chosen, "--episodes", 2)).stderr
    assert lines(tmp_path) == before
    ran(evaluate(*chosen, "--episodes", 3, "--workers", 2))
    assert lines(tmp_path)[:2] == before and [row["seed"] for row in rows(tmp_path)] == [
        "100000",
        "100001",
        "100002",
    ]
    refused = ran(evaluate(*chosen, "--episodes", 3, "--seed", 5), 2)
    assert "seed (100000 before, 5 now)" in refused.stderr
    ran(evaluate(*chosen, "--episodes", 1, "--seed", 5, "--overwrite"))
    assert [row["seed"] for row in rows(tmp_path)] == ["5"]


def test_shards_together_make_the_run(evaluate: Evaluate, tmp_path: Path) -> None:
    chosen = (
        "--task",
        TASK,
        "--policy",
        "zero",
        "--max-steps",
        3,
        "--episodes",
        3,
        "--no-report",
        "--out",
        tmp_path,
    )
    ran(evaluate(*chosen, "--shard", "1/2"))
    assert [row["seed"] for row in rows(tmp_path)] == ["100001"]
    ran(evaluate(*chosen))
    assert [row["seed"] for row in rows(tmp_path)] == ["100000", "100001", "100002"]


# ---------------------------------------------------------------------------------------------------------
# What it refuses, before anything is written.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--policy", "zero"], ["--task", "--tasks all"]),
        (["--task", "drawer-open", "--policy", "zero"], ["no task 'drawer-open'", "drawer-open-v3"]),
        (["--task", TASK, "--tasks", "all", "--policy", "zero"], ["--tasks all"]),
        (["--task", TASK, "--policy", "zero", "--execute", "2"], ["--execute", "baseline"]),
        (["--task", TASK, "--policy", "zero", "--checkpoint", "x"], ["--checkpoint", "baseline"]),
        (["--env", "pusht", "--tasks", "all", "--policy", "expert"], ["no scripted expert of pusht"]),
        (
            ["--env", "fetch", "--tasks", "all", "--policy", "expert"],
            ["no scripted expert of fetch", "FetchReach"],
        ),
        (["--task", TASK, "--checkpoint", "nowhere"], ["nowhere"]),
    ],
)
def test_a_wrong_call_is_refused(
    evaluate: Evaluate, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    result = ran(evaluate(*arguments, "--out", tmp_path / "run"), 2)
    for word in words:
        assert word in result.stderr
    assert not (tmp_path / "run").exists()


def test_pictures_without_graphics_name_the_package_and_states_still_work(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setenv("MUJOCO_GL", "glfw")  # needs a screen
    chosen = ("--task", TASK, "--policy", "zero", "--max-steps", 3, "--episodes", 1, "--out", out)
    refused = ran(evaluate(*chosen, "--video", 1), 1)
    assert "MUJOCO_GL" in refused.stderr and "egl" in refused.stderr
    assert not out.exists()
    ran(evaluate(*chosen))


# ---------------------------------------------------------------------------------------------------------
# A checkpoint.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy with random weights that knows two of MetaWorld's tasks."""
    import torch

    from polydit.robopolicy.language import Instructions
    from polydit.robopolicy.models import Sizes, build_network
    from polydit.robopolicy.normalize import Normalizer
    from polydit.robopolicy.policy import RobotPolicy
    from polydit.robopolicy.recipe import NetworkSize, Recipe

    def statistics(size: int) -> dict[str, np.ndarray]:
        one = np.ones(size)
        return {"mean": 0 * one, "std": one, "min": -one, "max": one, "q01": -one, "q99": one}

    torch.manual_seed(0)
    recipe = Recipe(model="rdt", network=NetworkSize(width=32, depth=2, heads=2), horizon=6)
    network = build_network(recipe, Sizes(state=39, action=4, language=8, language_tokens=1))
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():  # a head that starts at zero would answer nothing but zeros
                torch.nn.init.normal_(parameter, std=0.2)
    scales = {"observation.state": statistics(39), "action": statistics(4)}
    policy = RobotPolicy(
        network.eval(),
        Normalizer.of(scales, state="mean_std", action="min_max"),
        Instructions.vectors([instruction("metaworld", task) for task in ("reach-v3", TASK)], 8),
        model="rdt",
        execute=3,
        fps=80.0,
    )
    folder = tmp_path_factory.mktemp("policies") / "mine"
    policy.save_pretrained(folder)
    return folder


def test_a_checkpoint_runs_on_the_tasks_that_it_was_trained_on(
    evaluate: Evaluate, tmp_path: Path, checkpoint: Path
) -> None:
    results = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        chosen = ("--checkpoint", checkpoint, "--episodes", 2, "--max-steps", 7, "--plots", 2)
        ran(evaluate(*chosen, "--workers", workers, "--out", out))
        run = read_run(out)
        assert run.options["task"] == [TASK, "reach-v3"] and run.options["execute"] == 3
        assert run.provenance["checkpoint"]["sha256"] == Checkpoint.find(str(checkpoint)).sha256
        assert run.provenance["device"]
        results.append({path.name: path.read_bytes() for path in (out / "items").iterdir()})
        html = (out / "report.html").read_text()
        assert "checkpoint mine" in html and page_problems(html) == []
    assert results[0] == results[1] and len(results[0]) == 4  # the same actions with one and two workers


def test_the_actions_of_a_chunk_that_are_executed(checkpoint: Path) -> None:
    found = Checkpoint.find(str(checkpoint))
    with make_env("metaworld", TASK) as env:
        actions = {
            execute: rollout(
                env,
                PolicyChoice.of(found, execute=execute, num_steps=2).load()(env),
                100_000,
                max_steps=6,
            ).actions
            for execute in (3, 6)
        }
    assert np.array_equal(actions[3][:3], actions[6][:3]) and not np.array_equal(actions[3], actions[6])
    with pytest.raises(InputError, match=r"cannot execute 7 actions.* 1 to 6"):
        PolicyChoice.of(found, execute=7).load()


def test_a_checkpoint_of_another_robot_is_refused(
    evaluate: Evaluate, tmp_path: Path, checkpoint: Path, tiny_folder: Path
) -> None:
    out = tmp_path / "run"
    refused = ran(evaluate("--checkpoint", checkpoint, "--task", "push-v3", "--out", out), 2)
    assert "mine" in refused.stderr and "push-v3" in refused.stderr
    refused = ran(evaluate("--checkpoint", tiny_folder, "--env", "metaworld", "--out", out), 2)
    for word in ("tiny", f"metaworld {TASK}", "5 numbers in the policy", "39 numbers", "20 in the policy"):
        assert word in refused.stderr
    refused = ran(evaluate("--checkpoint", tiny_folder, "--env", "pusht", "--out", out), 2)
    assert "trained on no task of pusht" in refused.stderr
    assert not out.exists()

    index = json.loads((checkpoint / "model_index.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    for path in checkpoint.iterdir():
        (other / path.name).symlink_to(path)
    (other / "model_index.json").unlink()
    (other / "model_index.json").write_text(json.dumps(index | {"fps": 20.0}))
    refused = ran(evaluate("--checkpoint", other, "--task", TASK, "--out", out), 2)
    for word in ("other", f"metaworld {TASK}", "20 in the policy", "80 in the environment"):
        assert word in refused.stderr
    assert not out.exists()


def test_the_report_of_a_run_that_is_not_finished(
    evaluate: Evaluate, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    chosen = ("--task", TASK, "--policy", "zero", "--max-steps", 3, "--episodes", 2, "--no-report")
    ran(evaluate(*chosen, "--limit", 1, "--out", tmp_path / "run"))
    page = tmp_path / "page.html"
    assert f"Report: {page}" in ran(invoke(robopolicy, "report", tmp_path / "run", "--out", page)).stdout
    assert page_problems(page.read_text()) == [] and TASK in page.read_text()
    assert "is not a run folder" in ran(invoke(robopolicy, "report", tmp_path), 2).stderr
