"""Formulas: read, drawn with the sizes, told to the network, and refused where they cannot be met."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result

from polydit.core.errors import InputError
from polydit.core.jobs.seeds import item_generator
from polydit.molgen.batch import MOLECULE, collate
from polydit.molgen.data.structure import Structure
from polydit.molgen.formulas import FormulaDistribution, parse_formula
from polydit.molgen.model import LatentDiT
from polydit.molgen.pipeline import MolgenPipeline, SampleRequest, flow_scheduler
from polydit.molgen.sampling_plan import SamplingPlan, SizeDistribution
from polydit.molgen.train import DenoiserTask

WATER = Structure(id="water", numbers=np.array([8, 1, 1]), positions=np.eye(3))
METHANE = Structure(id="methane", numbers=np.array([6, 1, 1, 1, 1]), positions=np.eye(5, 3))
HISTOGRAM = {"CH4": 3, "C2H6O": 6, "C3H6": 2, "C2H5NO": 1}


@pytest.fixture
def pipeline(tiny_pipeline: MolgenPipeline) -> MolgenPipeline:
    """The tiny checkpoint with a network that can be told formulas."""
    torch.manual_seed(1)
    denoiser = LatentDiT(latent_channels=4, width=32, depth=1, heads=2, formula=True)
    torch.nn.init.normal_(denoiser.final.linear.weight, std=0.1)
    histograms = {"molecule": {"5": 3, "9": 9}, "crystal": {"2": 1}}
    elements = {"molecule": {"H": 9, "C": 3, "O": 1}, "crystal": {"Na": 1, "Cl": 1}}
    return MolgenPipeline(
        tiny_pipeline.autoencoder,
        denoiser,
        flow_scheduler(),
        histograms,
        elements,
        num_steps=3,
        formulas=HISTOGRAM,
    )


@pytest.mark.parametrize(
    ("text", "counts"),
    [("CH4", {"C": 1, "H": 4}), ("SrTiO3", {"Sr": 1, "Ti": 1, "O": 3}), ("HOH", {"H": 2, "O": 1})],
)
def test_a_formula_is_read(text: str, counts: dict[str, int]) -> None:
    assert parse_formula(text) == counts


@pytest.mark.parametrize("text", ["", "c2h6", "C2H6-", "2C", "C0H4", "C99999"])
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no formula"):
        parse_formula(text)


def test_formulas_are_drawn_as_often_as_the_training_data_have_them() -> None:
    plan = SamplingPlan(
        kind="molecule",
        num_samples=1200,
        sizes=SizeDistribution((5, 9), (3.0, 9.0)),
        formulas=FormulaDistribution.read(HISTOGRAM),
    )
    drawn = Counter(sample.formula for sample in plan)
    assert set(drawn) == set(HISTOGRAM)
    for formula, count in HISTOGRAM.items():
        assert drawn[formula] == pytest.approx(100 * count, rel=0.25)
    assert all(sum(parse_formula(s.formula).values()) == s.num_atoms for s in plan)


def test_asking_for_formulas_changes_no_size() -> None:
    sizes = SizeDistribution((5, 7, 9), (1.0, 1.0, 1.0))
    free, told = (
        SamplingPlan(kind="molecule", num_samples=50, sizes=sizes, formulas=formulas)
        for formulas in (None, FormulaDistribution.read(HISTOGRAM))
    )
    assert [s.num_atoms for s in free] == [s.num_atoms for s in told]
    assert {s.formula for s in told if s.num_atoms == 7} == {""}


def test_a_formula_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="CH4 has 5 atoms, not 6"):
        SampleRequest(id="a", kind="molecule", num_atoms=6, seed=0, formula="CH4")


def test_the_network_listens_to_the_formula(pipeline: MolgenPipeline) -> None:
    def latents(formula: str, scale: float = 1.0) -> torch.Tensor:
        requests = [SampleRequest(id="a", kind="molecule", num_atoms=9, seed=3, formula=formula)]
        with torch.no_grad():
            return pipeline.generate_latents(requests, torch.ones(1, 9, dtype=torch.bool), 3, scale)

    assert not torch.allclose(latents("C2H6O"), latents("C3H6"))
    assert not torch.allclose(latents("C2H6O"), latents(""))
    assert torch.equal(latents("C2H6O", 0.0), latents("C3H6", 0.0)), "scale 0 is without labels"


def test_an_item_is_told_its_own_formula_in_any_batch(pipeline: MolgenPipeline) -> None:
    requests = [
        SampleRequest(id="a", kind="molecule", num_atoms=5, seed=1, formula="CH4"),
        SampleRequest(id="b", kind="molecule", num_atoms=9, seed=2, formula="C2H6O"),
        SampleRequest(id="c", kind="crystal", num_atoms=2, seed=3),
    ]
    together = pipeline(requests)
    for request, structure in zip(requests, together, strict=True):
        alone = pipeline([request])[0]
        assert isinstance(structure, Structure) and isinstance(alone, Structure)
        torch.testing.assert_close(
            torch.from_numpy(structure.positions), torch.from_numpy(alone.positions), atol=1e-4, rtol=0.0
        )


def test_composition_counts_the_atoms_of_a_batch() -> None:
    composition = collate([WATER, METHANE]).composition
    assert composition[1, 1] == 4 and composition[1, 6] == 1 and composition[1].sum() == 5
    assert composition[0, 1] == 2 and composition[0, 8] == 1 and composition[0].sum() == 3


def test_training_tells_formulas_as_often_as_asked(pipeline: MolgenPipeline) -> None:
    task = DenoiserTask(pipeline.denoiser, pipeline.autoencoder, tell_formula={MOLECULE: 0.75})
    told = task._composition(collate([WATER] * 400), item_generator(0, "x"))
    assert told is not None
    assert (told.sum(1) > 0).float().mean() == pytest.approx(0.75, abs=0.08)


def test_a_network_trained_without_formulas_is_told_none() -> None:
    denoiser = LatentDiT(latent_channels=4, width=32, depth=1, heads=2)
    assert denoiser.composition_embed is None


def test_sample_asks_for_a_formula(
    pipeline: MolgenPipeline, tmp_path: Path, sample: Callable[..., Result]
) -> None:
    pipeline.save_pretrained(tmp_path / "model")
    common = ("--checkpoint", tmp_path / "model", "--num-samples", 3, "--out", tmp_path / "run")
    result = sample(*common, "--formula", "C2H6O")
    assert result.exit_code in (0, 3), result.stderr
    records = [json.loads(line) for line in (tmp_path / "run/manifest.jsonl").read_text().splitlines()]
    assert {record["measures"]["asked_formula"] for record in records} == {"C2H6O"}
    assert {record["measures"]["num_atoms"] for record in records} == {9}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--formula", "C2H6Pt"), "no molecules with Pt"),
        (("--formula", "C2H6O", "--atoms", "8"), "C2H6O has 9 atoms"),
        (("--formula", "water"), "no formula"),
        (("--formula", "C9H20"), "1 to 9 atoms"),
    ],
)
def test_a_formula_that_cannot_be_met_is_refused(
    options: tuple[str, ...],
    message: str,
    pipeline: MolgenPipeline,
    tmp_path: Path,
    sample: Callable[..., Result],
) -> None:
    pipeline.save_pretrained(tmp_path / "model")
    result = sample("--checkpoint", tmp_path / "model", "--out", tmp_path / "run", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "run").exists()
