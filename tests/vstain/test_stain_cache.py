"""Caches of the denoisers: `StainPipeline(cache=...)`, `vstain run --cache`, and what `polydit calibrate` samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image

from polydit.core.errors import InputError
from polydit.core.jobs import read_run
from polydit.core.sampling.cache import CacheReport, RouteTable
from polydit.core.sampling.calibration import Sampler, Setting, calibrate
from polydit.vstain.baseline.networks import UNetGenerator
from polydit.vstain.baseline.pipeline import GanPipeline
from polydit.vstain.calibration import sampler
from polydit.vstain.cli import vstain
from polydit.vstain.data.make import make_dataset
from polydit.vstain.model import StainDiT
from polydit.vstain.pipeline import StainPipeline
from polydit.vstain.schedules import clock_of, stain_scheduler
from polydit.vstain.schedules import sampler as spaced
from polydit.vstain.tiles import StainRequest

Invoke = Callable[..., Result]
Tile = Callable[..., np.ndarray]
STEPS = 8
OUTPUT = "output(every=2,order=1,warm_up=2,cool_down=0,time=step)"


@pytest.fixture(scope="module")
def deep_pipeline(tiny_network: Callable[..., StainDiT]) -> StainPipeline:
    """Of two blocks in each denoiser, which suggests a cache for its own steps."""
    network = tiny_network(image_depth=2, mask_depth=2)
    return StainPipeline(network, stain_scheduler(), stains=("cd3", "ck"), num_steps=STEPS, cache="output")


@pytest.fixture(scope="module")
def folder(deep_pipeline: StainPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    saved = tmp_path_factory.mktemp("deep") / "checkpoint"
    deep_pipeline.save_pretrained(saved)
    return saved


def request(he_tile: Tile) -> list[StainRequest]:
    return [StainRequest.of("a", he_tile(32), stain="ck", seed=3)]


@pytest.mark.parametrize("cache", [OUTPUT, "newton", "newton(time=log_snr)", "taylorseer(time=sigma)"])
def test_both_denoisers_are_forecast_and_nothing_is_left(
    deep_pipeline: StainPipeline, he_tile: Tile, cache: str
) -> None:
    asked, reports, calls = request(he_tile), list[CacheReport](), {"image": 0, "mask": 0}
    hooks = [
        denoiser.blocks[1].mlp.fc1.register_forward_hook(
            lambda *_, name=name: calls.update({name: calls[name] + 1})
        )
        for name, denoiser in zip(calls, deep_pipeline.denoisers(), strict=True)
    ]
    first, again = (deep_pipeline.generate(asked, cache=cache, on_cache=reports.append) for _ in range(2))
    plain = deep_pipeline.generate(asked, cache=None)
    for hook in hooks:
        hook.remove()
    full = len(reports[0].full_steps)
    assert torch.equal(first, again) and reports[0] == reports[1] and 2 <= full < STEPS
    assert calls == dict.fromkeys(calls, 2 * full + STEPS)
    assert 0.0 < float((first - plain).norm() / plain.norm()) < 0.5
    uncached = deep_pipeline.generate(asked, cache="none")
    torch.testing.assert_close(plain, uncached)  # a layer with a hook is not fused with the next


def test_a_table_of_routes_is_of_the_stains_denoiser(
    deep_pipeline: StainPipeline, he_tile: Tile, tmp_path: Path
) -> None:
    modules = tuple(f"{block}.{name}" for block in range(2) for name in ("attn", "cross", "mlp"))
    computed = ((True,) * 6, *((False,) * 6,) * (STEPS - 1))
    RouteTable(modules=modules, computed=computed).write(tmp_path / "routes.json")
    cache, told = f"harmonica(table={tmp_path / 'routes.json'})", list[CacheReport]()
    assert deep_pipeline.cached_denoisers(cache, STEPS) == [deep_pipeline.network.image]
    assert len(deep_pipeline.cached_denoisers("newton", STEPS)) == 2
    found = deep_pipeline.generate(request(he_tile), cache=cache, on_cache=told.append)
    plain = deep_pipeline.generate(request(he_tile), cache=None)
    assert len(told[0].skipped_steps) == STEPS - 1
    assert torch.equal(found[:, 3], plain[:, 3]) and not torch.equal(found[:, :3], plain[:, :3])


def test_auto_is_the_checkpoints_own_for_its_own_steps(folder: Path, he_tile: Tile) -> None:
    pipeline, asked = StainPipeline.from_pretrained(folder), request(he_tile)
    assert torch.equal(pipeline.generate(asked), pipeline.generate(asked, cache=OUTPUT))
    told: list[CacheReport] = []
    pipeline.generate(asked, num_steps=STEPS + 1, on_cache=told.append)
    assert not told


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_the_clock_begins_where_there_is_no_signal(steps: int) -> None:
    scheduler, _ = spaced(stain_scheduler(), steps)
    clock = clock_of(scheduler)
    assert clock.num_steps == steps and clock.sigmas[0] == 1.0
    assert all(one > other for one, other in zip(clock.sigmas, clock.sigmas[1:], strict=False))
    assert np.isfinite(clock.log_snr).all()
    alphas = scheduler.alphas_cumprod.double().flip(0).numpy()[1:]
    np.testing.assert_allclose(clock.log_snr[1:], np.log(alphas / (1.0 - alphas)), atol=1e-6)


def test_a_run_tells_what_its_cache_did(invoke: Invoke, folder: Path, he_tile: Tile, tmp_path: Path) -> None:
    Image.fromarray(he_tile(64)).save(tmp_path / "tile.png")
    line = ("run", "tile.png", "--stain", "ck", "--checkpoint", folder, "--no-report", "--out", "run")
    done = invoke(vstain, *line, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["cache"]["setting"] == OUTPUT
    assert (summary["cache"]["steps"], summary["cache"]["skipped_steps"]) == (STEPS, 3)
    run = read_run(tmp_path / "run")
    assert run.options["cache"] == OUTPUT == run.provenance["cache"]["setting"]
    assert json.loads((tmp_path / "run" / "items" / "tile.json").read_text())["cache"] == OUTPUT
    other = invoke(vstain, *line, "--cache", "none")
    assert other.exit_code == 2 and "cache" in other.stderr


def test_a_cache_that_cannot_serve_is_refused_before_any_tile(
    invoke: Invoke, tiny_checkpoint: Path, he_tile: Tile, tmp_path: Path
) -> None:
    Image.fromarray(he_tile(64)).save(tmp_path / "tile.png")
    line = ("run", "tile.png", "--stain", "ck", "--num-steps", 6, "--no-report", "--out", "run")
    done = invoke(vstain, *line, "--checkpoint", tiny_checkpoint, "--cache", "newton")
    assert done.exit_code == 2 and "there are no blocks from 1 to the end" in done.stderr
    assert not list((tmp_path / "run").glob("items/*"))


# ---------------------------------------------------------------------------------------------------------
# What is calibrated.


def test_settings_are_measured_on_procedural_tiles(folder: Path) -> None:
    found, stains = sampler(str(folder), 3, {"seed": "7"})
    assert isinstance(stains, Sampler) and found.path == folder
    assert stains.default == Setting(num_steps=STEPS, solver="ddim", cache="output")
    assert [request.stain for request in stains.requests] == ["cd3", "ck", "cd3"]
    _, other = sampler(str(folder), 2, {"stain": "ck", "seed": "7"})
    assert [request.stain for request in other.requests] == ["ck", "ck"]
    assert np.array_equal(other.requests[1].he, stains.requests[1].he)  # more items are other items besides
    small = [StainRequest.of(one.id, one.he[:64, :64].copy(), stain=one.stain) for one in stains.requests]
    stains = type(stains)(stains.pipeline, small)
    measured = calibrate(
        stains, [Setting(num_steps=STEPS, solver="ddim")], Setting(num_steps=64, solver="ddim"), rounds=1
    ).measured
    assert measured[0].moved == 0.0 < measured[1].moved and measured[1].error > 0.0


def test_settings_are_measured_on_tiles_of_the_users_own(folder: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "ds", 2, percent=(100, 0, 0))
    _, stains = sampler(str(folder), 2, {"data": str(tmp_path / "ds")})
    assert [request.he.shape for request in stains.requests] == [(256, 256, 3)] * 2
    with pytest.raises(InputError, match="has 2 tiles; expected 2 or less"):
        sampler(str(folder), 3, {"data": str(tmp_path / "ds")})


def test_what_cannot_be_calibrated_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no tissue; expected stain, seed or data"):
        sampler(str(folder), 1, {"tissue": "liver"})
    with pytest.raises(InputError, match="makes no 'her2'"):
        sampler(str(folder), 1, {"stain": "her2"})
    GanPipeline(UNetGenerator(), stains=("ck",)).save_pretrained(tmp_path / "gan")
    with pytest.raises(InputError, match="takes one step"):
        sampler(str(tmp_path / "gan"), 1, {})
