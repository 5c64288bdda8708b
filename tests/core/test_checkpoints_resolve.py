"""What follows --checkpoint: a name, a folder, a file, a hub address; and what is said when it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from polydit.core.checkpoints.resolve import resolve_checkpoint
from polydit.core.cli.domains import CheckpointEntry
from polydit.core.errors import CheckpointError


def entry(name: str, location: str) -> CheckpointEntry:
    return CheckpointEntry(name=name, location=location, licence="MIT", parameters=1, summary="")


# an installed package's folder without weights, and two on the hub
ENTRIES = (
    entry("starter", "package://polydit.core/checkpoints/files.py"),
    entry("small", "hf://owner/small@v1"),
    entry("lost", "package://polydit.core/no_such_folder"),
)


def test_the_default_is_the_first_name() -> None:
    assert resolve_checkpoint(None, entries=ENTRIES).name == "files.py"
    assert resolve_checkpoint("starter", entries=ENTRIES).name == "files.py"
    with pytest.raises(CheckpointError, match="no default checkpoint"):
        resolve_checkpoint(None, entries=())


def test_paths_are_given_back(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    assert resolve_checkpoint(str(tmp_path), entries=ENTRIES) == tmp_path
    file = tmp_path / "model.safetensors"
    assert resolve_checkpoint(str(file), entries=()) == file


def test_a_folder_with_a_truncated_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "part" / "model.safetensors"
    file.parent.mkdir()
    save_file({"a": torch.ones(2)}, file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated") as caught:
        resolve_checkpoint(str(tmp_path), entries=ENTRIES)
    assert str(file) in str(caught.value)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match=r"starter, small, lost.*Did you mean small\?") as caught:
        resolve_checkpoint("smal", entries=ENTRIES)
    assert caught.value.exit_code == 2


def test_a_listed_folder_that_is_not_installed_is_named() -> None:
    with pytest.raises(CheckpointError, match="lost is not part of this installation"):
        resolve_checkpoint("lost", entries=ENTRIES)


@pytest.mark.parametrize(
    ("reference", "command"),
    [
        ("small", "hf download owner/small --revision v1"),
        ("hf://owner/name", "hf download owner/name"),
        ("hf://owner/name@main", "hf download owner/name --revision main"),
    ],
)
def test_without_network_the_message_is_the_command(
    reference: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint(reference, entries=ENTRIES)
    assert str(caught.value).endswith(command)


def test_a_snapshot_in_the_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "a" * 40
    repository = tmp_path / "models--owner--small"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    save_file({"a": torch.ones(2)}, snapshot / "model.safetensors")
    assert resolve_checkpoint("small", entries=ENTRIES) == snapshot


@pytest.mark.parametrize("reference", ["hf://name", "hf://owner/name/../..", "hf://owner/name@"])
def test_an_address_that_is_none_is_named(reference: str) -> None:
    with pytest.raises(CheckpointError, match="not a hub address"):
        resolve_checkpoint(reference, entries=ENTRIES)
