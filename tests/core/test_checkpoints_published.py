"""Weights of published files: where they are found, what is refused; the 16-bit copy of a starter."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from polydit.core.checkpoints.published import find_weights, read_weights
from polydit.core.checkpoints.starter import run_command, ship
from polydit.core.errors import CheckpointError
from polydit.core.models.dit import DiT

STATE = {"a": torch.arange(3.0)}


def test_the_first_name_that_is_there_is_taken(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no weights of X.*a\.bin or b\.bin"):
        find_weights(tmp_path, ("a.bin", "b.bin"), kind="X")
    (tmp_path / "b.bin").touch()
    assert find_weights(tmp_path, ("a.bin", "b.bin"), kind="X") == tmp_path / "b.bin"
    assert find_weights(tmp_path / "b.bin", (), kind="X") == tmp_path / "b.bin"


def test_weights_lie_bare_or_under_a_key(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "bare.pt")
    torch.save({"ema": STATE, "step": 3}, tmp_path / "under.pt")
    save_file(STATE, tmp_path / "safe.safetensors")
    for name in ("bare.pt", "under.pt", "safe.safetensors"):
        assert torch.equal(read_weights(tmp_path / name, kind="X", under=("model", "ema"))["a"], STATE["a"])


@pytest.mark.parametrize("content", [{}, [1], {"step": 3}, {"ema": {"a": 1}}])
def test_what_holds_no_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of X"):
        read_weights(tmp_path / "x.pt", kind="X", under=("ema",))


def test_a_torn_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="damaged"):
        read_weights(tmp_path / "x.safetensors", kind="X")


def test_a_starter_is_half_as_large_and_complete(tmp_path: Path) -> None:
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "starter"
    network = DiT(sample_size=8, width=24, depth=1, heads=2, num_classes=2)
    network.save_pretrained(checkpoint / "network")
    (checkpoint / "scheduler").mkdir()
    (checkpoint / "scheduler" / "s.json").write_text("{}")
    (checkpoint / "model_index.json").write_text('{"network": 1}')
    folder.mkdir()
    ship(checkpoint, folder, networks={"network": network}, cache="newton")
    weights = "network/diffusion_pytorch_model.safetensors"
    assert (folder / weights).stat().st_size < 0.6 * (checkpoint / weights).stat().st_size
    assert json.loads((folder / "model_index.json").read_text()) == {"network": 1, "cache": "newton"}
    assert (folder / "scheduler" / "s.json").exists()


def test_a_command_that_fails_ends_the_recipe() -> None:
    python = Path(sys.executable).name
    run_command(python, "-c", "import sys; sys.exit(3)")  # some items failed: the figures count them
    with pytest.raises(SystemExit, match="2"):
        run_command(python, "-c", "import sys; sys.exit(2)")
