"""Scales of states and actions, and embeddings of instructions: exact both ways, stored, refused when damaged."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors

from polydit.core.errors import CheckpointError, InputError
from polydit.robopolicy.data.statistics import number_statistics
from polydit.robopolicy.language import Instructions
from polydit.robopolicy.normalize import Mode, Normalizer, Scale

ROWS = np.random.default_rng(0).normal([0.0, 5.0, -2.0], [1.0, 0.1, 30.0], size=(500, 3)).astype(np.float32)


def scale(mode: Mode, rows: np.ndarray = ROWS) -> Scale:
    return Scale(mode=mode, statistics=number_statistics(rows))


@pytest.mark.parametrize("mode", ["mean_std", "min_max", "quantiles", "identity"])
def test_denormalize_undoes_normalize(mode: Mode) -> None:
    found = scale(mode).denormalize(scale(mode).normalize(ROWS))
    np.testing.assert_allclose(found, ROWS, rtol=1e-5, atol=1e-5)


def test_modes_do_what_they_say() -> None:
    plain = scale("mean_std").normalize(ROWS)
    np.testing.assert_allclose(plain.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(plain.std(0), 1.0, atol=1e-4)
    ranged = scale("min_max").normalize(ROWS)
    np.testing.assert_allclose(ranged.min(0), -1.0, atol=1e-5)
    np.testing.assert_allclose(ranged.max(0), 1.0, atol=1e-5)
    middle = np.quantile(scale("quantiles").normalize(ROWS), [0.01, 0.99], axis=0)
    np.testing.assert_allclose(middle, [[-1.0] * 3, [1.0] * 3], atol=1e-4)
    assert scale("identity").normalize(ROWS) is not ROWS
    np.testing.assert_array_equal(scale("identity").normalize(ROWS), ROWS)


@pytest.mark.parametrize("mode", ["mean_std", "min_max", "quantiles"])
def test_a_constant_dimension_neither_divides_by_zero_nor_blows_up(mode: Mode) -> None:
    rows = np.column_stack([np.full(50, 0.3), np.linspace(0, 1, 50)])
    found = scale(mode, rows)
    np.testing.assert_allclose(found.normalize(rows)[:, 0], 0.0, atol=1e-6)
    np.testing.assert_allclose(found.normalize(np.array([0.4, 0.5]))[0], 0.1, atol=1e-6)
    np.testing.assert_allclose(found.denormalize(found.normalize(rows)), rows, atol=1e-6)


def test_clip_keeps_the_training_range() -> None:
    found = scale("min_max").clip(np.array([1e9, -1e9, 0.0]))
    np.testing.assert_allclose(found, [ROWS[:, 0].max(), ROWS[:, 1].min(), 0.0])


def normalizer() -> Normalizer:
    rows = {"observation.state": number_statistics(ROWS), "action": number_statistics(ROWS[:, :2])}
    return Normalizer.of(rows, state="mean_std", action="min_max")


def test_normalizer_is_the_same_after_saving(tmp_path: Path) -> None:
    normalizer().save(tmp_path)
    found = Normalizer.load(tmp_path)
    assert (found.state.mode, found.action.mode) == ("mean_std", "min_max")
    for name, values in found.action.statistics.items():
        np.testing.assert_array_equal(values, normalizer().action.statistics[name])


def test_missing_statistics_are_named() -> None:
    with pytest.raises(InputError, match="no statistics of action"):
        Normalizer.of({"observation.state": number_statistics(ROWS)}, state="identity", action="identity")
    row = {k: v for k, v in number_statistics(ROWS).items() if k != "q99"}
    with pytest.raises(InputError, match=r"observation\.state lack q99"):
        Normalizer.of({"observation.state": row, "action": row}, state="identity", action="identity")


def test_a_damaged_normalizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="normalisation"):
        Normalizer.load(tmp_path)
    normalizer().save(tmp_path)
    path = tmp_path / "normalizer.safetensors"
    values = load_file(path)
    save_file(values | {"action.std": np.array([1.0, np.nan])}, path)
    with pytest.raises(CheckpointError, match="no finite number"):
        Normalizer.load(tmp_path)
    save_file(values | {"action.std": np.ones(3)}, path)
    with pytest.raises(CheckpointError, match="different shapes"):
        Normalizer.load(tmp_path)
    save_file(values, path)
    (tmp_path / "normalizer.json").write_text(
        json.dumps({key: {"mode": "x"} for key in ("observation.state", "action")})
    )
    with pytest.raises(CheckpointError, match="unknown mode x"):
        Normalizer.load(tmp_path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="truncated"):
        Normalizer.load(tmp_path)


# ---------------------------------------------------------------------------------------------------------
# Instructions


def test_vectors_are_fixed_and_tell_tasks_apart() -> None:
    found = Instructions.vectors(["open", "close", "open"], 64)
    again = Instructions.vectors(["close", "open"], 64)
    assert found.texts == ["open", "close"] and found.kind == "vectors"
    assert torch.equal(found.embeddings["close"], again.embeddings["close"])
    a, b = (found.embeddings[text][0] for text in ("open", "close"))
    assert a.norm() == pytest.approx(8.0) and abs(torch.dot(a, b)) < 32.0
    assert not torch.equal(Instructions.vectors(["open"], 64, seed=1).embeddings["open"][0], a)


def test_an_unknown_instruction_is_refused_by_name_with_the_list() -> None:
    with pytest.raises(InputError, match=r"unknown instruction 'sing'.*'open', 'close'"):
        Instructions.vectors(["open", "close"], 8).batch(["open", "sing"])


def test_batch_pads_shorter_instructions() -> None:
    known = Instructions({"a": torch.ones(3, 4), "b": torch.ones(1, 4)})
    values, mask = known.batch(["b", "a"])
    assert values.shape == (2, 3, 4)
    assert mask.tolist() == [[True, False, False], [True] * 3]
    assert values[0].sum() == 4.0


def test_instructions_are_the_same_after_saving(tmp_path: Path) -> None:
    known = Instructions({"öffne": torch.randn(3, 4), "b": torch.randn(1, 4)})
    known.save(tmp_path)
    found = Instructions.load(tmp_path)
    assert found.texts == known.texts and found.kind == "precomputed"
    assert all(torch.equal(found.embeddings[text], known.embeddings[text]) for text in known.texts)
    (tmp_path / "instructions.json").write_text("{}")
    with pytest.raises(CheckpointError, match="instructions cannot be read"):
        Instructions.load(tmp_path)


def test_precomputed_embeddings_are_read_in_every_form(tmp_path: Path) -> None:
    torch.save({"name": "x", "instruction": "wipe", "embeddings": torch.ones(1, 2, 4)}, tmp_path / "a.pt")
    torch.save(torch.ones(5, 4, dtype=torch.bfloat16), tmp_path / "lift it.pt")
    save_tensors({"turn": torch.ones(3, 4)}, tmp_path / "c.safetensors")
    found = Instructions.read(tmp_path)
    assert {text: tuple(v.shape) for text, v in found.embeddings.items()} == {
        "wipe": (2, 4), "lift it": (5, 4), "turn": (3, 4)
    }  # fmt: skip
    assert all(value.dtype == torch.float32 for value in found.embeddings.values())
    assert Instructions.read(tmp_path / "c.safetensors").texts == ["turn"]


class Harmful:
    """Would make a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (str(self.path),)


def test_what_is_no_embedding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no embeddings there"):
        Instructions.read(tmp_path)
    mark = tmp_path / "mark"
    torch.save({"instruction": Harmful(mark)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not plain data"):
        Instructions.read(tmp_path / "a.pt")
    assert not mark.exists()
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"instruction": "x"}))
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        Instructions.read(tmp_path / "b.pt")
    torch.save({"weights": torch.ones(2)}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="no embedding of an instruction"):
        Instructions.read(tmp_path / "c.pt")
    torch.save(torch.ones(2, 3, 4), tmp_path / "d.pt")
    with pytest.raises(CheckpointError, match=r"shape \(2, 3, 4\)"):
        Instructions.read(tmp_path / "d.pt")
    with pytest.raises(InputError, match="shape"):
        Instructions({"a": torch.ones(1, 4), "b": torch.ones(1, 5)})
    with pytest.raises(InputError, match="no finite number"):
        Instructions({"a": torch.full((1, 4), torch.nan)})
