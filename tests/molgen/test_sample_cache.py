"""`--cache`: what it saves, records and refuses, and that the network of the starter is left as it was."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import Result

from polydit.core.jobs import item_seed, read_run

if TYPE_CHECKING:
    from polydit.core.sampling.cache import CacheReport
    from polydit.molgen.pipeline import MolgenPipeline, SampleRequest

Sample = Callable[..., Result]
NEWTON = "newton(every=3,order=2,warm_up=2,cool_down=0,first=1,time=step)"


def items(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "items").iterdir()}


def ran(result: Result, code: int = 0) -> Result:
    assert result.exit_code == code, result.output
    return result


# ---------------------------------------------------------------------------------------------------------
# The command.


def test_a_cache_saves_steps_and_says_how_many(sample: Sample, tmp_path: Path) -> None:
    arguments = ("--num-samples", 6, "--num-steps", 8, "--batch-size", 3)
    result = ran(sample(*arguments, "--cache", "newton", "--out", tmp_path / "newton"))
    assert f"cache {NEWTON}: 8 of 16 steps skipped, forecasts off by" in result.stdout
    assert "had no effect" not in result.stderr
    run = read_run(tmp_path / "newton")
    assert run.options["cache"] == NEWTON
    record = run.provenance["cache"]
    assert (record["setting"], record["runs"]) == (NEWTON, 2)
    assert (record["steps"], record["full_steps"], record["skipped_steps"]) == (16, 8, 8)
    assert record["estimated_error"] > 1  # random weights: nothing goes on smoothly from step to step
    assert "Warning: the cache newton(" in result.stderr and "does not suit this sampling" in result.stderr
    ran(sample(*arguments, "--out", tmp_path / "plain"))
    assert items(tmp_path / "plain") != items(tmp_path / "newton")
    ran(sample("--config", tmp_path / "newton" / "run.json", "--out", tmp_path / "again"))
    assert items(tmp_path / "again") == items(tmp_path / "newton")


def test_no_cache_is_the_default_and_changes_nothing(sample: Sample, tmp_path: Path) -> None:
    for name, options in {"default": [], "none": ["--cache", "none"], "auto": ["--cache", "auto"]}.items():
        result = ran(sample("--num-samples", 3, *options, "--out", tmp_path / name))
        assert ("checkpoint tiny suggests none" in result.stderr) == (name == "auto")
        assert "steps skipped" not in result.stdout
        run = read_run(tmp_path / name)
        assert run.options["cache"] == "none" and "cache" not in run.provenance
        assert items(tmp_path / name) == items(tmp_path / "default")


def test_another_cache_is_another_setting(sample: Sample, tmp_path: Path) -> None:
    ran(sample("--num-samples", 2, "--out", tmp_path))
    result = ran(sample("--num-samples", 2, "--cache", "newton", "--out", tmp_path), 2)
    assert f"cache (none before, {NEWTON} now)" in result.stderr
    ran(sample("--num-samples", 2, "--cache", "newton", "--overwrite", "--out", tmp_path))
    assert (
        "Nothing left to do."
        in ran(sample("--num-samples", 2, "--cache", "newton(every=3)", "--out", tmp_path)).stderr
    )


def test_a_cache_that_skips_nothing_is_said_loudly(sample: Sample, tmp_path: Path) -> None:
    for name, steps in {"newton": 2, "fbcache(threshold=0)": 4}.items():
        out = tmp_path / str(steps)
        arguments = ("--num-samples", 2, "--num-steps", steps, "--quiet")
        result = ran(sample(*arguments, "--cache", name, "--out", out))
        assert "Warning: the cache" in result.stderr
        assert "had no effect: every step was computed" in result.stderr
        assert read_run(out).provenance["cache"]["skipped_steps"] == 0
        ran(sample(*arguments, "--out", tmp_path / f"plain-{steps}"))
        assert items(out) == items(tmp_path / f"plain-{steps}")


def test_a_summary_and_a_plan_for_a_program(sample: Sample, tmp_path: Path) -> None:
    arguments = ("--num-samples", 2, "--num-steps", 6, "--cache", "taylorseer", "--out", tmp_path / "run")
    plan = json.loads(ran(sample(*arguments, "--dry-run", "--json")).stdout)
    assert plan["cache"].startswith("taylorseer(every=3,")
    assert f"cache:      {plan['cache']}" in ran(sample(*arguments, "--dry-run")).stdout
    summary = json.loads(ran(sample(*arguments, "--json")).stdout.splitlines()[-1])
    assert summary["cache"]["setting"] == plan["cache"]
    assert summary["cache"]["skipped_steps"] == 3


REFUSED = {
    "an unknown cache": ("teacache", "no cache is called 'teacache'; expected none, newton"),
    "an unknown option": ("newton(interval=4)", "newton has no option 'interval'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_name_is_found_before_any_weight_is_loaded(
    case: str, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polydit.molgen.pipeline import MolgenPipeline

    monkeypatch.setattr(MolgenPipeline, "from_pretrained", lambda *_: pytest.fail("weights were loaded"))
    name, message = REFUSED[case]
    result = ran(sample("--cache", name, "--out", tmp_path / "run"), 2)
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


def test_a_cache_that_does_not_fit_the_network_is_found_before_any_item(
    sample: Sample, tmp_path: Path
) -> None:
    result = ran(sample("--cache", "newton(first=2)", "--out", tmp_path), 2)
    assert "there are no blocks from 2 to the end; expected a range of the 2 blocks" in result.stderr
    assert not items(tmp_path)


def test_auto_is_what_the_checkpoint_suggests(sample: Sample, tmp_path: Path, tiny_checkpoint: Path) -> None:
    from polydit.molgen.pipeline import MolgenPipeline

    folder = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    index = json.loads((folder / "model_index.json").read_text())

    def suggest(cache: str) -> None:
        (folder / "model_index.json").write_text(json.dumps(index | {"cache": cache}))

    assert index["num_steps"] != 6
    arguments = ("--num-samples", 2, "--num-steps", 6, "--checkpoint", folder)
    suggest("newton(every=2)")
    result = ran(sample(*arguments, "--out", tmp_path / "longer"))
    assert "cache newton" not in result.stdout, "it was chosen for another number of steps"
    index["num_steps"] = 6
    suggest("newton(every=2)")
    result = ran(sample(*arguments, "--out", tmp_path / "auto"))
    assert "cache newton(every=2,order=2," in result.stdout
    ran(sample(*arguments, "--cache", "newton(every=2)", "--out", tmp_path / "named"))
    assert items(tmp_path / "auto") == items(tmp_path / "named")
    MolgenPipeline.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    assert MolgenPipeline.from_pretrained(tmp_path / "saved").cache == "newton(every=2)"
    suggest("newton(interval=2)")
    result = ran(sample(*arguments, "--out", tmp_path / "wrong"), 2)
    assert str(folder) in result.stderr and "has no option 'interval'" in result.stderr
    assert not (tmp_path / "wrong").exists()


# ---------------------------------------------------------------------------------------------------------
# The starter's network.


@pytest.fixture(scope="module")
def starter() -> MolgenPipeline:
    from polydit.molgen import load

    return load()


def requests(count: int) -> list[SampleRequest]:
    from polydit.molgen.pipeline import SampleRequest

    return [
        SampleRequest(id=f"{i}", kind="molecule", num_atoms=9 + i % 3, seed=item_seed(0, f"{i}"))
        for i in range(count)
    ]


def positions(
    pipeline: MolgenPipeline,
    cache: str | None,
    count: int = 3,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, list[CacheReport]]:
    """Of all atoms of all structures, and what the cache did."""
    reports: list[CacheReport] = []
    made = pipeline(requests(count), num_steps=12, cache=cache, on_cache=reports.append, on_step=on_step)
    return np.concatenate([structure.positions for structure in made]), reports  # type: ignore[union-attr]


CACHES = ("newton", "taylorseer", "delta-dit")


def test_runs_of_the_starter_repeat_whatever_lies_between(starter: MolgenPipeline) -> None:
    plain, none = positions(starter, None)
    assert not none
    for cache in CACHES:
        first, (report,) = positions(starter, cache)
        assert report.num_steps == 12 and report.skipped_steps
        assert report.estimated_error is not None
        positions(starter, cache, count=5)  # another batch
        with pytest.raises(KeyboardInterrupt):
            positions(starter, cache, on_step=_stop_in_the_middle)
        assert np.array_equal(positions(starter, cache)[0], first)
        assert not np.array_equal(first, plain)
    assert np.array_equal(positions(starter, "none")[0], plain)
    assert np.array_equal(positions(starter, "auto")[0], plain)
    assert not any("forward" in module.__dict__ for module in starter.denoiser.modules())


def _stop_in_the_middle(step: int, steps: int) -> None:
    if step == 5:
        raise KeyboardInterrupt


def test_samplings_of_the_starter_in_several_threads_do_not_mix(starter: MolgenPipeline) -> None:
    chosen = (None, *CACHES)
    alone = {cache: positions(starter, cache)[0] for cache in chosen}
    barrier, found = threading.Barrier(len(chosen)), dict[str | None, np.ndarray]()

    def work(cache: str | None) -> None:
        barrier.wait()
        found[cache] = positions(starter, cache)[0]

    threads = [threading.Thread(target=work, args=(cache,)) for cache in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[cache], alone[cache]) for cache in chosen)
