"""The plan of a run: an item is what its name and the seed say, whatever else is asked for."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from itertools import chain, islice
from pathlib import Path

import pytest

from polydit.core.cli.options import Shard
from polydit.core.errors import CheckpointError, InputError
from polydit.core.jobs import item_seed
from polydit.core.jobs.device import Device
from polydit.molgen.sampling_cost import SamplingCost
from polydit.molgen.sampling_plan import (
    BatchLimit,
    PlannedSample,
    SamplingPlan,
    SizeDistribution,
    padded_tokens,
)

HISTOGRAM = {"9": 20, "5": 10, "12": 5, "7": 0}
SIZES = SizeDistribution.parse("auto", HISTOGRAM)


def plan(num_samples: int = 100, **more: object) -> SamplingPlan:
    return SamplingPlan(kind="molecule", num_samples=num_samples, sizes=SIZES, **more)  # type: ignore[arg-type]


def test_sizes_are_drawn_as_often_as_in_the_training_data() -> None:
    counts = Counter(sample.num_atoms for sample in plan(7000))
    assert set(counts) == {5, 9, 12}
    for size, share in ((5, 10 / 35), (9, 20 / 35), (12, 5 / 35)):
        assert counts[size] / 7000 == pytest.approx(
            share, abs=0.02
        )  # 3.5 standard deviations; the draw is fixed


@pytest.mark.parametrize(
    ("text", "sizes", "weights"),
    [
        ("auto", (5, 9, 12), (10, 20, 5)),
        ("7", (7,), (1,)),
        ("9", (9,), (20,)),
        ("5-9", (5, 9), (10, 20)),
        ("6-12", (9, 12), (20, 5)),
        ("1-4", (1, 2, 3, 4), (1, 1, 1, 1)),
        ("10-11", (10, 11), (1, 1)),
    ],
)
def test_what_atoms_may_be(text: str, sizes: tuple[int, ...], weights: tuple[float, ...]) -> None:
    found = SizeDistribution.parse(text, HISTOGRAM)
    assert (found.sizes, found.weights) == (sizes, weights)


@pytest.mark.parametrize(
    "text", ["0", "13", "5-13", "9-5", "0-3", "five", "", "5-", "-5", "5-9-12", "5.5", "9" * 30]
)
def test_what_atoms_may_not_be(text: str) -> None:
    with pytest.raises(InputError, match=f"--atoms {text}"):
        SizeDistribution.parse(text, HISTOGRAM)


def test_without_a_histogram_sizes_must_be_told() -> None:
    with pytest.raises(InputError, match=r"does not say how large its crystals are.*--atoms 5-20"):
        SizeDistribution.parse("auto", {}, kind="crystal")
    assert SizeDistribution.parse("50-51", {}).sizes == (50, 51)


def test_the_ends_of_the_distribution_are_reached() -> None:
    assert (SIZES.draw(0.0), SIZES.draw(1.0 - 2**-53)) == (5, 12)
    assert SIZES.mean == pytest.approx((50 + 180 + 60) / 35)


def test_an_item_depends_on_its_name_and_the_seed_alone() -> None:
    whole = list(plan(50))
    assert whole[17] == PlannedSample(17, "mol-000017", item_seed(0, "mol-000017"), whole[17].num_atoms)
    assert list(plan(20)) == whole[:20]
    assert list(plan(50, limit=7)) == whole[:7]
    parts = [list(plan(50, shard=Shard(i, 3))) for i in range(3)]
    assert sorted(chain(*parts), key=lambda sample: sample.index) == whole
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert list(plan(50, shard=Shard(1, 3), limit=2)) == parts[1][:2]
    assert [s.seed for s in plan(50, seed=1)] != [s.seed for s in whole]


def test_names_tell_the_kind() -> None:
    crystals = SamplingPlan(kind="crystal", num_samples=2, sizes=SIZES)
    assert [sample.id for sample in crystals] == ["crystal-000000", "crystal-000001"]


@pytest.mark.parametrize(
    "limit", [BatchLimit(items=8), BatchLimit(tokens=70), BatchLimit(items=8, tokens=70)], ids=str
)
def test_batches_hold_every_item_once_within_the_limit(limit: BatchLimit) -> None:
    batches = list(plan(500).batches(limit))
    assert sorted(chain(*batches), key=lambda sample: sample.index) == list(plan(500))
    assert all(len(batch) <= (limit.items or 500) for batch in batches)
    assert all(padded_tokens(batch) <= (limit.tokens or 10_000) for batch in batches)


def test_batches_of_similar_sizes_waste_little() -> None:
    sizes = SizeDistribution(tuple(range(5, 61)), (1.0,) * 56)
    whole = SamplingPlan(kind="molecule", num_samples=5000, sizes=sizes)
    atoms = sum(sample.num_atoms for sample in whole)
    assert sum(map(padded_tokens, whole.batches(BatchLimit(tokens=1024)))) / atoms < 1.06
    samples = iter(whole)
    unsorted = [list(islice(samples, 32)) for _ in range(5000 // 32)]
    assert sum(map(padded_tokens, unsorted)) / atoms > 1.7


def test_an_item_beyond_the_limit_comes_alone() -> None:
    assert {len(batch) for batch in plan(20).batches(BatchLimit(tokens=3))} == {1}


def test_a_run_without_end_takes_no_memory() -> None:
    tracemalloc.start()
    batches = plan(10**15).batches(BatchLimit(tokens=256))
    assert sum(len(batch) for batch in islice(batches, 50)) > 50
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6


# ---------------------------------------------------------------------------------------------------------
# What it costs.


def test_the_cost_model_counts_what_the_networks_do(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from polydit.molgen.pipeline import MolgenPipeline, SampleRequest

    pipeline = MolgenPipeline.from_pretrained(tiny_checkpoint)
    cost = SamplingCost.read(tiny_checkpoint, num_steps=10, guidance_scale=2.0)
    networks = (pipeline.denoiser, pipeline.autoencoder)
    assert cost.parameters == sum(p.numel() for network in networks for p in network.parameters())

    # torch's counter does not know the fused kernel
    monkeypatch.setattr("polydit.core.nn.linear._fusible", lambda *_: False)
    requests = [SampleRequest(id=str(i), kind="molecule", num_atoms=12, seed=i) for i in range(16)]
    with FlopCounterMode(display=False) as counter:
        pipeline(requests, num_steps=10, guidance_scale=2.0)
    passes = 10 * 2 * cost.denoiser.operations(192.0, 12.0) + cost.autoencoder.operations(192.0, 12.0)
    assert passes == pytest.approx(counter.get_total_flops(), rel=0.25)


def test_batches_fit_the_device(tiny_checkpoint: Path) -> None:
    cost = SamplingCost.read(tiny_checkpoint, num_steps=10, guidance_scale=2.0)
    assert (
        cost.bytes_per_token
        == 2 * SamplingCost.read(tiny_checkpoint, num_steps=10, guidance_scale=1.0).bytes_per_token
    )
    assert 512 <= cost.tokens_per_batch(Device("cpu", "a CPU")) <= 4096
    plenty, little, none = (
        cost.tokens_per_batch(Device("cuda:0", "a GPU", free)) for free in (80 << 30, 8 << 20, 0)
    )
    assert plenty == 65536
    assert 256 <= little <= (8 << 20) / 2 / cost.bytes_per_token
    assert none == 64  # the item loop halves it if need be


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "denoiser").mkdir()
    (tmp_path / "denoiser" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="denoiser"):
        SamplingCost.read(tmp_path, num_steps=2, guidance_scale=1.0)
