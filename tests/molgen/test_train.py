"""Training of molgen: poses, losses, both stages through the command, and going on after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from rdkit import Chem
from rdkit.Chem import AllChem

from polydit.core.cli.config import apply_settings
from polydit.core.errors import InputError
from polydit.core.jobs.seeds import item_generator
from polydit.core.training.trainer import read_metrics
from polydit.molgen.batch import collate
from polydit.molgen.canonical import canonical
from polydit.molgen.cli import molgen
from polydit.molgen.data.interop import from_rdkit
from polydit.molgen.data.structure import Structure
from polydit.molgen.data.writers import render
from polydit.molgen.fit import prepare, set_latent_scale
from polydit.molgen.model import AtomAutoencoder, LatentDiT
from polydit.molgen.pipeline import MolgenPipeline, Prior, SampleRequest
from polydit.molgen.recipe import Recipe
from polydit.molgen.train import Augmentation, AutoencoderTask, DenoiserTask, centred, random_rotations

TINY = [
    "--set", "latent_channels=4",
    "--set", "autoencoder.width=32", "--set", "autoencoder.depth=1", "--set", "autoencoder.heads=2",
    "--set", "denoiser.width=32", "--set", "denoiser.depth=2", "--set", "denoiser.heads=2",
    "--set", "autoencoder_training.steps=6", "--set", "autoencoder_training.batch_size=4",
    "--set", "denoiser_training.steps=6", "--set", "denoiser_training.batch_size=4",
    "--set", "autoencoder_training.log_every=1", "--set", "denoiser_training.log_every=1",
    "--set", "autoencoder_training.precision=no", "--set", "denoiser_training.precision=no",
]  # fmt: skip


def molecule(smiles: str, seed: int = 1) -> Structure:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=seed) == 0
    return from_rdkit(mol, id=smiles)


def rock_salt(a: float = 5.64) -> Structure:
    frac = np.array(
        [
            [0, 0, 0],
            [0, 0.5, 0.5],
            [0.5, 0, 0.5],
            [0.5, 0.5, 0],
            [0.5, 0.5, 0.5],
            [0.5, 0, 0],
            [0, 0.5, 0],
            [0, 0, 0.5],
        ]
    )
    return Structure(
        id="NaCl",
        numbers=np.array([11] * 4 + [17] * 4),
        positions=a * frac,
        cell=a * np.eye(3),
        spacegroup=225,
    )


def turned(structure: Structure, seed: int) -> Structure:
    """The same structure rotated, moved and with its atoms shuffled."""
    generator = torch.Generator().manual_seed(seed)
    rotation = random_rotations(1, generator)[0].double().numpy()
    order = np.random.default_rng(seed).permutation(structure.num_atoms)
    inverse = np.argsort(order)
    assert structure.bonds is not None
    bonds = np.concatenate([inverse[structure.bonds[:, :2]], structure.bonds[:, 2:]], axis=1)
    return replace(
        structure,
        numbers=structure.numbers[order],
        positions=(structure.positions @ rotation.T + seed)[order],
        bonds=bonds,
        charges=None,
    )


@pytest.mark.parametrize("smiles", ["CCO", "C", "C#N", "c1ccoc1", "CC(N)C=O", "O"])
def test_canonical_pose_does_not_depend_on_pose_and_order(smiles: str) -> None:
    original = molecule(smiles)
    first, second = canonical(original), canonical(turned(original, 7))
    assert sorted(first.numbers.tolist()) == sorted(original.numbers.tolist())
    assert first.numbers.tolist() == second.numbers.tolist()
    # Equivalent atoms may change places, so compare what no permutation of equals changes.
    for number in set(first.numbers.tolist()):
        a, b = (np.linalg.norm(s.positions[s.numbers == number], axis=1) for s in (first, second))
        np.testing.assert_allclose(np.sort(a), np.sort(b), atol=1e-3)
    np.testing.assert_allclose(first.positions.mean(0), 0, atol=1e-9)


def test_canonical_pose_keeps_the_molecule_and_its_hand() -> None:
    original = molecule("C[C@H](N)C=O")
    posed = canonical(original)
    assert posed.bonds is not None and original.bonds is not None
    for structure in (original, posed):
        lengths = np.linalg.norm(np.diff(structure.positions[structure.bonds[:, :2]], axis=1)[:, 0], axis=1)  # type: ignore[index]
        assert lengths.min() > 0.9 and lengths.max() < 1.6
    volumes = []
    for structure in (original, posed):
        centre = next(i for i, n in enumerate(structure.numbers) if n == 6 and 7 in _neighbours(structure, i))
        around = sorted(
            _bonded(structure, centre), key=lambda j: (structure.numbers[j], len(_bonded(structure, j)))
        )
        vectors = structure.positions[around[:4]] - structure.positions[centre]
        volumes.append(np.sign(np.linalg.det(vectors[:3])))
    assert volumes[0] == volumes[1]


def _bonded(structure: Structure, i: int) -> list[int]:
    return [int(b if a == i else a) for a, b, _ in structure.bonds if i in (a, b)]  # type: ignore[union-attr]


def _neighbours(structure: Structure, i: int) -> list[int]:
    return [int(structure.numbers[j]) for j in _bonded(structure, i)]


def test_canonical_crystal_is_reduced_ordered_and_away_from_the_border() -> None:
    posed = canonical(rock_salt())
    assert posed.num_atoms == 8 and posed.spacegroup == 225
    assert posed.numbers.tolist() == [11] * 4 + [17] * 4  # by electronegativity
    np.testing.assert_allclose(posed.frac_coords[0], 0.125)
    assert posed.frac_coords.min() > 0.05 and posed.frac_coords.max() < 0.95


def test_rotations_are_rotations_and_uniform() -> None:
    rotation = random_rotations(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(4000, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(4000), atol=1e-5, rtol=0)
    # the published draw of positive quaternions has a mean far from 0
    assert rotation.mean(0).abs().max() < 0.05


def test_corruption_changes_the_input_only_where_it_says() -> None:
    batch = collate([molecule("CCO"), molecule("C")])
    noisy = Augmentation(mask_types=0.5, noise_positions=0.5).corrupt(batch, torch.Generator().manual_seed(1))
    hidden, moved = noisy.numbers != batch.numbers, (noisy.positions != batch.positions).any(-1)
    assert hidden.any() and moved.any() and not moved[~batch.mask].any()
    assert (noisy.numbers[hidden] == 0).all()
    assert torch.equal(noisy.frac_coords, batch.frac_coords)  # molecules have none


def test_loss_does_not_depend_on_padding() -> None:
    torch.manual_seed(0)
    task = AutoencoderTask(
        AtomAutoencoder(width=32, depth=1, heads=2),
        augmentation=Augmentation(mask_types=0.0, noise_positions=0.0),
    )
    structures = [molecule("CCO"), rock_salt()]
    batch = collate(structures)
    posterior = task.model.encode(batch)
    terms = task.criterion.terms(task.model.decode(posterior.mean, batch.mask), posterior, batch)
    for row, structure in enumerate(structures):
        alone = collate([structure])
        single = task.model.encode(alone)
        expected = task.criterion.terms(task.model.decode(single.mean, alone.mask), single, alone)
        for name, term in terms.items():
            found = term[row] if term.ndim == 1 else term[row, : structure.num_atoms]
            torch.testing.assert_close(found, expected[name][0], atol=1e-5, rtol=1e-4)


def test_geometric_loss_reaches_the_denoiser() -> None:
    torch.manual_seed(0)
    autoencoder, denoiser = AtomAutoencoder(width=32, depth=1, heads=2), LatentDiT(width=32, depth=1, heads=2)
    with torch.no_grad():
        autoencoder.decoder.position_head.weight.mul_(0.05)  # atoms at the distance of bonds
    task = DenoiserTask(denoiser, autoencoder, geometric_weight=1.0)
    found = task.loss(denoiser, collate([molecule("CCO")]), item_generator(0, "x"))
    assert found["geometric"] > 0
    found["geometric"].backward()
    assert denoiser.final.linear.bias.grad is not None and denoiser.final.linear.bias.grad.abs().sum() > 0


def test_latent_scale_normalises_the_latents() -> None:
    torch.manual_seed(0)
    autoencoder = AtomAutoencoder(width=32, depth=1, heads=2)
    items = [molecule("CCO", seed) for seed in range(1, 9)]
    set_latent_scale(autoencoder, items)
    batch = collate(items)
    latents = autoencoder.normalize(autoencoder.encode(batch).mean, batch.kind)
    assert latents.flatten(0, 1).mean(0).abs().max() < 0.5
    torch.testing.assert_close(
        autoencoder.denormalize(latents, batch.kind), autoencoder.encode(batch).mean, atol=1e-6, rtol=1e-5
    )


def test_latents_of_each_kind_have_their_own_scale() -> None:
    torch.manual_seed(0)
    autoencoder = AtomAutoencoder(width=32, depth=1, heads=2)
    crystals = [rock_salt(5.0 + 0.2 * k) for k in range(8)]
    kinds = {"crystal": crystals, "molecule": [molecule("CCO", seed) for seed in range(1, 9)]}
    set_latent_scale(autoencoder, [*kinds["molecule"], *kinds["crystal"]])
    for items in kinds.values():
        batch = collate(items)
        noise = torch.randn(len(items), items[0].num_atoms, 8, generator=item_generator(0, "noise"))
        latents = autoencoder.normalize(autoencoder.encode(batch).sample(noise), batch.kind)
        assert latents.flatten(0, 1).mean(0).abs().max() < 0.6
        assert latents.flatten(0, 1).std(0).min() > 0.5 and latents.flatten(0, 1).std(0).max() < 1.6


def test_a_kind_without_structures_keeps_the_plain_scale() -> None:
    autoencoder = AtomAutoencoder(width=32, depth=1, heads=2)
    set_latent_scale(autoencoder, [molecule("CCO", seed) for seed in range(1, 9)])
    assert autoencoder.config.latent_mean[0] == [0.0] * 8
    assert autoencoder.config.latent_std[0] == [1.0] * 8


def test_noise_keeps_its_mean_unless_it_is_to_be_centred() -> None:
    request = SampleRequest(id="a", kind="molecule", num_atoms=6, seed=1)
    free, centre = (Prior([request], 6, 4, torch.device("cpu"), centre=flag)() for flag in (False, True))
    assert free.mean(1).abs().max() > 0.1
    torch.testing.assert_close(free - free.mean(1, keepdim=True), centre, atol=1e-6, rtol=0.0)


def test_noise_of_an_item_does_not_depend_on_its_batch() -> None:
    requests = [SampleRequest(id=str(k), kind="molecule", num_atoms=3 + k, seed=k) for k in range(5)]
    cpu = torch.device("cpu")
    batch = Prior(requests, 7, 4, cpu)
    alone = [Prior([request], request.num_atoms, 4, cpu) for request in requests]
    first = batch()
    second = batch()
    for together in (first, second):
        for row, (request, prior) in enumerate(zip(requests, alone, strict=True)):
            assert torch.equal(prior()[0], together[row, : request.num_atoms])
        torch.testing.assert_close(centred(together, batch.mask), together, atol=1e-6, rtol=0.0)
    assert not torch.equal(first, second)


def test_pipeline_mixes_kinds_and_sizes(tiny_pipeline: MolgenPipeline) -> None:
    requests = [
        SampleRequest(id="m", kind="molecule", num_atoms=9, seed=1),
        SampleRequest(id="c", kind="crystal", num_atoms=4, seed=2, spacegroup=225),
    ]
    both = tiny_pipeline(requests)
    alone = [tiny_pipeline([request])[0] for request in requests]
    for a, b in zip(both, alone, strict=True):
        assert isinstance(a, Structure) and isinstance(b, Structure)
        np.testing.assert_allclose(a.positions, b.positions, atol=1e-4)
    assert [s.kind for s in both if isinstance(s, Structure)] == ["molecule", "crystal"]
    assert tiny_pipeline([]) == []
    with pytest.raises(InputError, match="1 steps are too few"):
        tiny_pipeline(requests, num_steps=1)


def test_unknown_setting_is_named() -> None:
    with pytest.raises(InputError, match=r"denoiser\.widht.*denoiser\.width"):
        apply_settings(Recipe(), {"denoiser.widht": 3})
    with pytest.raises(InputError, match="no structure"):
        prepare([], Recipe())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "ds"
    folder.mkdir()
    smiles = ["C", "CC", "CCO", "C=O", "CO", "CN", "C#N", "N"]
    (folder / "molecules.sdf").write_text("".join(render(molecule(s), "sdf") for s in smiles))
    for k in range(5):
        (folder / f"salt-{k}.cif").write_text(render(rock_salt(5.4 + 0.1 * k), "cif"))
    return folder


def test_train_command_makes_a_checkpoint_that_samples(
    invoke: Callable[..., Result], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    result = invoke(molgen, "train", "--data", data, "--out", out, "--device", "cpu", *TINY)
    assert result.exit_code == 0, result.output
    assert len(read_metrics(out / "denoiser" / "metrics.jsonl")) == 6
    index = json.loads((out / "checkpoint" / "model_index.json").read_text())
    assert set(index["size_histograms"]) == {"molecule", "crystal"}
    run = tmp_path / "run"
    sampled = invoke(
        molgen,
        "sample",
        "--checkpoint",
        out / "checkpoint",
        "--num-samples",
        2,
        "--num-steps",
        2,
        "--no-report",
        "--out",
        run,
    )
    assert sampled.exit_code in (0, 3, 1), sampled.output
    assert (run / "manifest.jsonl").read_text().count("\n") == 2
    again = invoke(molgen, "train", "--data", data, "--out", out, "--device", "cpu", *TINY, "--set", "kl=0.1")
    assert again.exit_code == 2
    assert "settings.kl" in again.stderr


def test_train_refuses_what_it_cannot_train_on(invoke: Callable[..., Result], tmp_path: Path) -> None:
    empty = tmp_path / "empty.sdf"
    empty.write_text("")
    result = invoke(molgen, "train", "--data", empty, "--out", tmp_path / "model")
    assert result.exit_code == 2
    assert "empty.sdf" in result.stderr
    assert not (tmp_path / "model").exists()


def test_dry_run_shows_the_recipe_and_writes_nothing(
    invoke: Callable[..., Result], data: Path, tmp_path: Path
) -> None:
    result = invoke(molgen, "train", "--data", data, "--out", tmp_path / "model", "--dry-run", *TINY)
    assert result.exit_code == 0, result.output
    assert "5 crystals, 8 molecules" in result.stdout
    assert "denoiser.width = 32" in result.stdout
    assert not (tmp_path / "model").exists()
