"""From requests to clouds: batches, solvers, completion, interpolation, what is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from polydit.core.errors import CheckpointError, InputError
from polydit.pointgen.cloud import Cloud, Normalisation, Rejected, fault
from polydit.pointgen.model import PointDiT
from polydit.pointgen.pipeline import PointPipeline, ShapeRequest
from polydit.pointgen.schedules import (
    HIGHEST,
    STORED,
    NoiseSchedule,
    betas,
    edm_scheduler,
    flow_scheduler,
    noise_scheduler,
    solver_of,
)
from polydit.pointgen.solvers import SOLVERS, check_solver


def request(number: int = 0, **settings: object) -> ShapeRequest:
    given = {"id": f"c{number}", "category": "chair", "num_points": 64, "seed": number}
    return ShapeRequest(**{**given, **settings})


def made(pipeline: PointPipeline, *requests: ShapeRequest, **options: object) -> list[np.ndarray]:
    clouds = pipeline(list(requests), **options)
    assert all(isinstance(cloud, Cloud) for cloud in clouds)
    return [cloud.points for cloud in clouds]


def test_a_cloud_does_not_depend_on_its_batch(tiny_pipeline: PointPipeline) -> None:
    together = made(tiny_pipeline, request(0), request(1, category="table"), request(2))
    (alone,) = made(tiny_pipeline, request(1, category="table"))
    np.testing.assert_allclose(together[1], alone, atol=1e-5)
    assert not np.allclose(together[0], together[2])


def test_the_modulation_of_all_steps_is_made_before_the_first(tiny_pipeline: PointPipeline) -> None:
    requests, options = [request(0), request(1, category="table")], {"num_steps": 4, "guidance_scale": 2.0}
    usual = made(tiny_pipeline, *requests, **options)
    pipeline = copy.deepcopy(tiny_pipeline)
    dit = pipeline.network.dit

    def lose(step: int, steps: int) -> None:
        for part in (dit.modulator, dit.time_embed, dit.label_embed):
            part.to("meta")

    for one, other in zip(made(pipeline, *requests, **options, on_step=lose), usual, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, with numpy 2
@pytest.mark.parametrize(
    "stored", [None, flow_scheduler(), noise_scheduler("warm0.1")], ids=["edm", "flow", "noise"]
)
def test_every_solver_of_every_objective_runs_after_saving(
    tiny_pipeline: PointPipeline, stored: object, tmp_path: Path
) -> None:
    scheduler = tiny_pipeline.scheduler if stored is None else stored
    settings = {key: tiny_pipeline.config[key] for key in ("categories", "mean", "scale", "num_steps")}
    PointPipeline(tiny_pipeline.network, scheduler, **settings).save_pretrained(tmp_path)
    pipeline = PointPipeline.from_pretrained(tmp_path)
    assert type(pipeline.scheduler) is type(scheduler)
    for solver in SOLVERS[type(scheduler).__name__]:
        points = made(pipeline, request(0), request(1), num_steps=4, guidance_scale=2.0, solver=solver)
        assert all(np.isfinite(cloud).all() for cloud in points)
    with pytest.raises(InputError, match="cannot be sampled"):
        pipeline(
            [request()],
            solver=next(s for s in ("euler", "ddpm") if s not in SOLVERS[type(scheduler).__name__]),
        )


def test_the_ancestral_sampler_goes_on_with_the_noise_of_its_item() -> None:
    """A new network predicts 0, so the sampler is linear in its noise: 4 draws of 4 steps, the start among them."""
    network = PointDiT(voxels=8, patch_size=4, width=24, depth=1, heads=2)
    pipeline = PointPipeline(network.eval(), noise_scheduler("linear"), categories=("chair",))
    clouds = made(pipeline, request(7), request(8), num_steps=4, solver="ddpm")
    for seed, points in zip((7, 8), clouds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        draws = torch.stack(
            [torch.randn(64, 3, generator=generator).flatten() for _ in range(4)], dim=1
        ).double()
        found = torch.from_numpy(points).flatten().double()
        shares = torch.linalg.lstsq(draws, found).solution
        torch.testing.assert_close(draws @ shares, found, atol=1e-4, rtol=1e-4)
        assert (shares.abs() > 1e-3).all()


KEPT = np.cumprod(1.0 - betas("linear"))
OBJECTIVES = {  # stored scheduler, start, what is learned of data and noise at a level, the level of what is told
    "edm": (edm_scheduler, HIGHEST, lambda x, e, s: (s * x - e) / (s**2 + 1) ** 0.5, lambda t: np.exp(4 * t)),
    "flow": (flow_scheduler, 1.0, lambda x, e, s: x - e, lambda t: 1.0 - t),
    "noise": (lambda: noise_scheduler("linear"), 1.0, lambda x, e, s: e, lambda t: (1 - KEPT[int(t)]) ** 0.5),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, with numpy 2
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_network_that_knows_the_data_leads_there(objective: str) -> None:
    make, start, learned, level_of = OBJECTIVES[objective]
    generator = torch.Generator().manual_seed(0)
    data, noise = (torch.randn(50, 3, generator=generator) for _ in range(2))
    for solver in SOLVERS[type(make()).__name__]:
        scheduler = solver_of(make(), solver)
        scheduler.set_timesteps(10)
        schedule = NoiseSchedule.of(scheduler)
        assert schedule.start == pytest.approx(start)
        x = schedule.noisy(data, noise, 0)
        for index, timestep in enumerate(scheduler.timesteps):
            signal, level = schedule.signal[index], schedule.noise[index]
            assert level_of(float(schedule.times[index])) == pytest.approx(level, rel=1e-4)
            predicted = schedule.sign * learned(data, (x - signal * data) / level, level)
            x = scheduler.step(predicted, timestep, x, generator=generator, return_dict=False)[0]
        torch.testing.assert_close(x, data, atol=1e-3, rtol=1e-3)
        assert torch.equal(schedule.noisy(data, noise, 10), data)


def test_every_stored_scheduler_has_solvers() -> None:
    assert [kind.__name__ for kind in STORED] == list(SOLVERS)
    with pytest.raises(CheckpointError, match="LCMScheduler"):
        check_solver("LCMScheduler", "auto")


def test_known_points_come_back_as_they_are(tiny_pipeline: PointPipeline) -> None:
    partial = np.random.default_rng(0).normal(0, 0.3, (20, 3)).astype(np.float32)
    (points,) = made(tiny_pipeline, request(partial=partial))
    np.testing.assert_array_equal(points[:20], partial)
    (free,) = made(tiny_pipeline, request())
    assert not np.allclose(points[20:], free[20:])  # the others know of them


def test_between_two_seeds(tiny_pipeline: PointPipeline) -> None:
    start, end, other = (request(seed=1, seed_to=2, mix=m) for m in (0.0, 1.0, 0.5))
    first, last, middle = made(tiny_pipeline, start, end, other)
    np.testing.assert_allclose(first, made(tiny_pipeline, request(seed=1))[0], atol=1e-5)
    np.testing.assert_allclose(last, made(tiny_pipeline, request(seed=2))[0], atol=1e-5)
    assert abs(float(other.noise(other.generator()).std()) - 1.0) < 0.1
    assert not np.allclose(middle, first) and not np.allclose(middle, last)


def test_numbers_that_are_no_cloud_are_rejected(tiny_pipeline: PointPipeline) -> None:
    weight = tiny_pipeline.network.dit.final.linear.bias
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.fill_(float("nan"))
        (found,) = tiny_pipeline([request()])
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert isinstance(found, Rejected) and "not finite" in found.reason


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_points": 1}, "no shape"),
        ({"mix": 1.5}, "mix"),
        ({"partial": np.zeros((3, 3), np.float32)}, "the same"),
        ({"partial": np.eye(64, 3, dtype=np.float32)}, "leave none"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        request(**settings)


def test_what_the_checkpoint_lacks_is_named(tiny_pipeline: PointPipeline) -> None:
    with pytest.raises(InputError, match="boat"):
        tiny_pipeline([request(category="boat")])
    with pytest.raises(InputError, match="too few"):
        tiny_pipeline([request()], num_steps=1)


def test_a_foreign_scheduler_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for file in tiny_checkpoint.rglob("*.*"):
        target = tmp_path / file.relative_to(tiny_checkpoint)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("EDMDPMSolverMultistepScheduler", "LCMScheduler"))
    with pytest.raises(CheckpointError, match="LCMScheduler"):
        PointPipeline.from_pretrained(tmp_path)


def test_normalisation_is_undone() -> None:
    points = np.random.default_rng(0).normal(3.0, 2.0, (50, 3)).astype(np.float32)
    scale = Normalisation.of(points)
    assert abs(float(scale.normalise(points).std()) - 1.0) < 1e-2
    np.testing.assert_allclose(scale.denormalise(scale.normalise(points)), points, atol=1e-5)
    with pytest.raises(InputError, match="positive scale"):
        Normalisation((0.0, 0.0, 0.0), 0.0)


def test_what_is_no_cloud_is_said() -> None:
    good = np.eye(3, dtype=np.float32)
    assert fault(good) == ""
    bad = good.copy()
    bad[1, 1] = np.nan
    cases = {
        "shape": good[:, :2],
        "no shape": good[:1],
        "finite": bad,
        "beyond": good * 1e7,
        "same": good * 0,
    }
    for named, points in cases.items():
        assert named in fault(points)


def test_schedules_of_airplanes() -> None:
    warm = betas("warm0.1")
    assert warm[0] == 1e-5 and warm[99] == 0.008 and (warm[100:] == 0.008).all()
    with pytest.raises(InputError, match="linear"):
        betas("cosine")
