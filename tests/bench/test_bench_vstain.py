"""The bench of virtual staining, at its smallest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from click.testing import Result

from polydit.bench.cli import polydit_bench
from polydit.bench.stain_multitask import SHARES, Size, multitask_rows
from polydit.bench.stain_places import Place
from polydit.bench.stain_plain import plain_tiles
from polydit.vstain import StainRequest, load
from polydit.vstain.pictures import to_image


def test_the_plain_way_gives_what_the_pipeline_gives() -> None:
    """A ratio of two programs that compute different things means nothing."""
    pipeline, place = load(), Place.at(0, 0, 64)
    clean = plain_tiles(pipeline, [place.he], [place.noise], "ck", steps=3)
    plain = to_image(pipeline.normalisation.denormalise(clean[:, :3]))[0].numpy()
    request = StainRequest(id="a", he=place.he, stain="ck", noise=place.noise)
    (ours,) = pipeline([request], num_steps=3)
    assert np.abs(plain.astype(int) - ours.ihc).max() <= 1
    assert ours.mask is not None
    assert ((clean[0, 3] > 0).numpy() == ours.mask).mean() > 0.999


@pytest.fixture
def no_precision_of_another_test() -> Iterator[None]:
    """accelerate keeps the first one of a process, and the trainings of other tests have another."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("no_precision_of_another_test")
def test_six_trainings_make_a_table() -> None:
    size = Size(pairs=80, tests=10, steps=2, width=32)
    rows = list(multitask_rows(quick=True, size=size))
    assert len(rows) == 2 * len(SHARES) + 1
    assert "multitask reaches that from" in rows[-1].how
    assert {"8 pairs", "24 pairs", "80 pairs"} <= {" ".join(row.how.split()[:2]) for row in rows}


@pytest.mark.parametrize("part, keys", [("places", {"stain overlap", "stain batch", "stain shift"})])
def test_the_command_tells_each_row(invoke: Callable[..., Result], part: str, keys: set[str]) -> None:
    import json

    result = invoke(polydit_bench, "vstain", "--quick", "--only", part, "--json")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["key"] for row in rows} == keys
    assert next(row for row in rows if row["key"] == "stain overlap")["value"] < 1.0
