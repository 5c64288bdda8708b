"""The report of a run: complete, truthful, and no larger for a larger run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.spacegroup import crystal
from click.testing import Result
from rdkit import Chem
from rdkit.Chem import AllChem

from polydit.core.cli.config import Option
from polydit.core.errors import InputError
from polydit.core.jobs import ItemFailure, ItemResult, RunFolder
from polydit.core.testing.pages import page_problems
from polydit.molgen.checkpoint import Checkpoint
from polydit.molgen.cli import molgen
from polydit.molgen.data.interop import from_ase, from_rdkit
from polydit.molgen.data.structure import Structure
from polydit.molgen.data.writers import Format, render
from polydit.molgen.evaluate import evaluate_structures
from polydit.molgen.evaluate.inputs import read_inputs
from polydit.molgen.report import write_report

EVIL = "<script>alert(1)</script>"


def molecule(smiles: str) -> Structure:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    return from_rdkit(mol, id=smiles)


@pytest.fixture(scope="module")
def molecules() -> list[Structure]:
    """Ethanol, acetonitrile, benzene, and three atoms that are no molecule."""
    debris = Structure(id="x", numbers=np.array([6, 8, 1]), positions=np.eye(3) * 4.0)
    return [molecule("CCO"), molecule("CC#N"), molecule("c1ccccc1"), debris]


@pytest.fixture(scope="module")
def crystals() -> list[Structure]:
    """Rock salt and rutile, conventional cells."""
    salt = crystal(["Na", "Cl"], [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=[5.64] * 3 + [90] * 3)
    sites = [(0, 0, 0), (0.305, 0.305, 0)]
    rutile = crystal(["Ti", "O"], sites, spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90])
    return [from_ase(salt, id="salt"), from_ase(rutile, id="rutile")]


@pytest.fixture
def make_run(tmp_path: Path, tiny_checkpoint: Path) -> Callable[..., Path]:
    """``make_run(structures, failures=("why",))``: a run folder as `molgen sample` leaves it."""

    def make(structures: Sequence[Structure], failures: Sequence[str] = (), ids: str = "mol-{:06d}") -> Path:
        out = tmp_path / "run"
        options = {
            "num_samples": Option(len(structures), "command line"),
            "note": Option(EVIL, "environment"),
        }
        checkpoint = Checkpoint.find(str(tiny_checkpoint)).provenance()
        provenance = {"checkpoint": {**checkpoint, "licence": "Apache-2.0"}}
        outcomes: list[ItemResult | ItemFailure] = []
        for index, structure in enumerate(structures):
            named = replace(structure, id=ids.format(index))
            form: Format = "sdf" if structure.cell is None else "cif"
            files = {f".{form}": render(named, form).encode()}
            outcomes.append(ItemResult(id=named.id, index=index, seed=index + 7000, files=files))
        for index, reason in enumerate(failures, len(structures)):
            name = ids.format(index)
            outcomes.append(ItemFailure(id=name, index=index, seed=0, error="Absurd", message=reason))
        with RunFolder.open(out, command="molgen sample", options=options, provenance=provenance) as folder:
            folder.commit(outcomes)
        return out

    return make


def test_the_report_of_molecules_is_complete(
    make_run: Callable[..., Path], molecules: list[Structure]
) -> None:
    run = make_run(molecules, ["a cell without volume"])
    page = write_report(run)
    assert page == run / "report.html"
    html = page.read_text()
    assert page_problems(html) == []
    for text in (
        "C<sub>2</sub>H<sub>6</sub>O", "CCO", "c1ccccc1", "7002",  # what was made, from which seed
        "EDM valid", "RDKit valid", "EDM&#x27;s bond lengths",  # figures and their methods
        "not EDM-valid", "in pieces",  # the debris says so
        "a cell without volume", "mol-000004",  # what failed
        "num-samples", "command line", "environment",  # settings and their sources
        "checkpoint sha256", "Apache-2.0", "torch", "For research",  # where it comes from, what it is for
        'href="items/mol-000000.sdf"',
    ):  # fmt: skip
        assert text in html, text
    assert html.count('class="viewer"') == 4
    assert html.count("2D drawing of") == 3


def test_the_figures_are_those_of_the_evaluation(
    make_run: Callable[..., Path], molecules: list[Structure]
) -> None:
    run = make_run(molecules, ["why"])
    figures = json.loads(write_report(run).with_name("figures.json").read_text())
    expected = evaluate_structures(read_inputs([run]))
    assert figures["figures"] == json.loads(json.dumps(expected.to_json()))
    assert figures["figures"]["edm_valid"]["numerator"] == 3
    assert (figures["samples"], figures["failed"], figures["measured"]) == (4, 1, 4)
    assert figures["distributions"]["samples"]["sizes"] == {"molecule": {"3": 1, "6": 1, "9": 1, "12": 1}}
    assert figures["distributions"]["samples"]["elements"]["molecule"] == {"H": 16, "C": 11, "O": 2, "N": 1}

    assert "EDM valid" in write_report(run, evaluation=expected).read_text()


def test_crystals_show_their_cell_and_their_images(
    make_run: Callable[..., Path], crystals: list[Structure]
) -> None:
    html = write_report(make_run(crystals, ids="crystal-{:06d}")).read_text()
    assert page_problems(html) == []
    for text in (
        "Fm-3m (225)",
        "P4_2/mnm (136)",
        "TiO<sub>2</sub>",
        "4.59 4.59 2.96 Å",
        "nearest neighbours",
    ):
        assert text in html, text
    assert html.count('"cell":[[') == 2


def test_text_from_files_is_never_a_tag(make_run: Callable[..., Path], molecules: list[Structure]) -> None:
    html = write_report(make_run(molecules[:1], [EVIL], ids=EVIL + "-{}")).read_text()
    assert page_problems(html) == []
    assert EVIL not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4  # id, failed id, reason, setting


def test_the_training_set_stands_beside_the_samples(
    make_run: Callable[..., Path], molecules: list[Structure], tmp_path: Path
) -> None:
    run = make_run(molecules)
    html = write_report(run).read_text()
    assert "Series: samples, training set" in html  # sizes that the checkpoint remembers
    assert "sizes only" in html

    train = tmp_path / "train.sdf"
    train.write_text("".join(render(structure, "sdf") for structure in molecules[:2]))
    html = write_report(run, train=train).read_text()
    assert html.count("Series: samples, training set") == 2  # sizes and elements
    assert html.count(">in the training set<") == 2
    assert html.count(">novel<") == 1
    assert "EDM novel of unique" in html


def test_a_checkpoint_that_has_changed_is_not_asked(
    make_run: Callable[..., Path], molecules: list[Structure]
) -> None:
    run = make_run(molecules)
    content = json.loads((run / "run.json").read_text())
    content["provenance"]["checkpoint"]["sha256"] = "0" * 64
    (run / "run.json").write_text(json.dumps(content))
    html = write_report(run).read_text()
    assert "Nothing is known of the training set" in html
    assert "training set</" not in html.split("Distributions</h2>")[1].split("Nothing is known")[0]


def test_nothing_made_is_a_report_too(make_run: Callable[..., Path]) -> None:
    html = write_report(make_run([])).read_text()
    assert page_problems(html) == []
    assert "0 structures" in html


def test_all_failed_is_a_report_too(make_run: Callable[..., Path]) -> None:
    html = write_report(make_run([], ["no volume"] * 300)).read_text()
    assert page_problems(html) == []
    assert html.count("no volume") == 200
    assert "And 100 more" in html


def test_an_item_that_is_gone_is_a_failure_and_no_more(
    make_run: Callable[..., Path], molecules: list[Structure]
) -> None:
    run = make_run(molecules)
    (run / "items" / "mol-000001.sdf").unlink()
    (run / "items" / "mol-000002.sdf").write_text("no structure")
    html = write_report(run).read_text()
    assert page_problems(html) == []
    assert html.count('class="viewer"') == 2
    for name in ("mol-000001", "mol-000002"):
        assert name in html.split(">Failures</h2>")[1]


def test_the_page_does_not_grow_with_the_run(
    make_run: Callable[..., Path], molecules: list[Structure], tmp_path: Path
) -> None:
    small = len(write_report(make_run(molecules * 13)).read_text())
    (tmp_path / "run").rename(tmp_path / "small")
    large_run = make_run(molecules * 50)
    html = write_report(large_run, limit=100).read_text()
    assert len(html) < 1.02 * small < 260_000
    assert "The first 48 of 200" in html
    assert "first 100 of 200 structures" in html
    assert json.loads((large_run / "figures.json").read_text())["measured"] == 100


def test_the_command_writes_where_it_is_told(
    invoke: Callable[..., Result], make_run: Callable[..., Path], molecules: list[Structure], tmp_path: Path
) -> None:
    run = make_run(molecules)
    before = sorted(path.name for path in run.iterdir())
    result = invoke(molgen, "report", run, "--out", tmp_path / "page.html", "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert Path(summary["report"]).read_text().startswith("<!DOCTYPE html>")
    assert json.loads(Path(summary["figures"]).read_text())["samples"] == 4
    assert sorted(path.name for path in run.iterdir()) == before

    assert invoke(molgen, "report", tmp_path).exit_code == 2
    assert invoke(molgen, "report", run, "--train", run / "run.json").exit_code == 2
    assert invoke(molgen, "report", run, "--out", tmp_path / "absent" / "page.html").exit_code == 1


def test_sampling_ends_with_a_report(sample: Callable[..., Result], tmp_path: Path) -> None:
    for kind in ("molecule", "crystal"):
        out = tmp_path / kind
        result = sample("--kind", kind, "--num-samples", 4, "--report", "--out", out)
        assert result.exit_code in (0, 3), result.stderr
        assert page_problems((out / "report.html").read_text()) == []
        assert json.loads((out / "figures.json").read_text())["samples"] > 0


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.json"):
        write_report(tmp_path)
