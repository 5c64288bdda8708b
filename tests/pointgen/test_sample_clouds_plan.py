"""The plan of a run: an item is what its name and the seed say, whatever else is asked for."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from polydit.core.errors import CheckpointError
from polydit.core.jobs import Manifest, Shard, item_seed
from polydit.core.jobs.device import Device
from polydit.pointgen.sampling_cost import SamplingCost
from polydit.pointgen.sampling_plan import (
    CompletionPlan,
    InterpolationPlan,
    PlannedShape,
    SamplingPlan,
    input_names,
)


def plan(
    num_samples: int = 50, categories: tuple[str, ...] = ("chair", "table"), **more: object
) -> SamplingPlan:
    return SamplingPlan(num_samples=num_samples, categories=categories, **more)  # type: ignore[arg-type]


def test_categories_take_turns() -> None:
    assert [shape.id for shape in plan(5)] == [
        "chair-000000", "table-000000", "chair-000001", "table-000001", "chair-000002",
    ]  # fmt: skip
    assert plan(5).counts() == {"chair": 3, "table": 2}
    assert plan(50, shard=Shard(1, 2)).counts() == {"chair": 0, "table": 25}


def test_an_item_depends_on_its_name_and_the_seed_alone() -> None:
    whole = list(plan())
    assert whole[2] == PlannedShape(
        index=2, id="chair-000001", seed=item_seed(0, "chair-000001"), category="chair"
    )
    assert list(plan(20)) == whole[:20]
    assert list(plan(limit=7)) == whole[:7]
    parts = [list(plan(shard=Shard(i, 3))) for i in range(3)]
    assert sorted(chain(*parts), key=lambda shape: shape.index) == whole
    assert list(plan(shard=Shard(1, 3), limit=2)) == parts[1][:2]
    assert not {s.seed for s in plan(seed=1)} & {s.seed for s in whole}


def test_a_chair_is_the_same_alone_and_beside_tables() -> None:
    alone = {shape.id: shape.seed for shape in plan(10, ("chair",))}
    beside = {shape.id: shape.seed for shape in plan(20)}
    assert alone.items() <= beside.items()


def test_groups_hold_every_item_once_in_order() -> None:
    groups = list(plan(10).groups(4))
    assert [len(group) for group in groups] == [4, 4, 2]
    assert list(chain(*groups)) == list(plan(10))


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "manifest.jsonl")
    assert plan(10).missing(manifest) == 10
    manifest.path.write_text(
        "".join(
            f'{{"id": "{name}", "index": 0, "status": "{status}", "attempt": 1}}\n'
            for name, status in (("chair-000000", "ok"), ("table-000000", "failed"))
        )
    )
    manifest = Manifest(manifest.path)
    assert plan(10).missing(manifest) == 8
    assert plan(10).missing(manifest, retry_failed=True) == 9


def test_completions_keep_their_place_when_more_are_asked_for() -> None:
    inputs = [Path("a/one.ply"), Path("two.npy")]
    few, many = (CompletionPlan(num_samples=k, inputs=inputs, category="chair") for k in (1, 3))
    assert list(many)[:2] == list(few)
    assert [shape.id for shape in few] == ["one-000", "two-000"]
    assert [shape.partial for shape in many] == inputs * 3
    assert len({shape.seed for shape in many}) == len(many) == 6


def test_files_of_one_name_are_told_apart() -> None:
    assert input_names([Path("a/x.ply"), Path("b/x.ply"), Path("y.npy")]) == ["a/x.ply", "b/x.ply", "y"]


def test_an_interpolation_goes_from_end_to_end() -> None:
    row = list(InterpolationPlan(num_samples=5, seed=3, seed_to=9, category="car"))
    assert [shape.mix for shape in row] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert {(shape.seed, shape.seed_to, shape.category) for shape in row} == {(3, 9, "car")}


def test_the_cost_counts_what_the_network_does(tiny_checkpoint: Path) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from polydit.pointgen.pipeline import PointPipeline, ShapeRequest

    pipeline = PointPipeline.from_pretrained(tiny_checkpoint)
    cost = SamplingCost.read(tiny_checkpoint, num_points=64, num_steps=2, guidance_scale=2.0)
    assert cost.network.parameters == sum(p.numel() for p in pipeline.network.parameters())
    assert cost.tokens == 8
    requests = [ShapeRequest(id=str(i), category="chair", num_points=64, seed=i) for i in range(4)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        pipeline(requests, num_steps=2, guidance_scale=2.0)
    counted = 2 * 2 * cost.network.operations(4 * cost.tokens, cost.attended)
    # the tiny network spends as much on its patches as on its blocks; a real one does not
    assert 0.2 < counted / counter.get_total_flops() < 1.5


def test_batches_fit_the_device(tiny_checkpoint: Path) -> None:
    cost = SamplingCost.read(tiny_checkpoint, num_points=64, num_steps=2, guidance_scale=1.0)
    guided = SamplingCost.read(tiny_checkpoint, num_points=64, num_steps=2, guidance_scale=2.0)
    assert guided.bytes_per_cloud == 2 * cost.bytes_per_cloud
    plenty, none = (cost.clouds_per_batch(Device("cuda:0", "a GPU", free)) for free in (80 << 30, 0))
    assert plenty > 1000 > none >= 1
    assert cost.memory_bytes(64) > cost.memory_bytes(1)


@pytest.mark.parametrize("content", ["{}", "[]", '{"width": 8', '{"width": 24, "depth": 2}'])
def test_a_damaged_part_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match="network"):
        SamplingCost.read(tmp_path, num_points=64, num_steps=2, guidance_scale=1.0)
