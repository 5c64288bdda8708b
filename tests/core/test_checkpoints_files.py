"""Weight files: digest, whole or truncated, 16 bits on disk; folders that are written whole; cards; key maps."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from polydit.core.checkpoints.files import check_weights, read_header, sha256_of
from polydit.core.checkpoints.folder import checkpoint_folder, component_sizes, read_card
from polydit.core.checkpoints.keys import KeyMap, below, count_blocks
from polydit.core.checkpoints.weights import load_strict, save_half
from polydit.core.errors import CheckpointError, InputError, PolyditError
from polydit.core.models import DiT

SIZES = {"sample_size": 4, "patch_size": 2, "width": 16, "depth": 1, "heads": 2, "num_classes": 3}


@pytest.fixture
def model() -> DiT:
    torch.manual_seed(0)
    model = DiT(**SIZES)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(
        {"a": torch.ones(3, 4), "b": torch.zeros(2, dtype=torch.int64)}, path, metadata={"format": "pt"}
    )
    return path


def test_digest_of_a_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_digest_of_a_folder_knows_names_and_content(tmp_path: Path) -> None:
    digests = set()
    for name, content in (("a", b"1"), ("b", b"1"), ("a", b"2")):
        folder = tmp_path / f"{name}{content!r}"
        folder.mkdir()
        (folder / name).write_bytes(content)
        digests.add(sha256_of(folder))
    assert len(digests) == 3


def test_header_tells_names_and_shapes(weights: Path) -> None:
    header = read_header(weights)
    assert {name: entry["shape"] for name, entry in header.items()} == {"a": [3, 4], "b": [2]}


@pytest.mark.parametrize("missing", [1, 40, 100])
def test_a_truncated_file_is_named(missing: int, weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-missing])
    with pytest.raises(CheckpointError, match="truncated") as caught:
        check_weights(weights.parent)
    assert weights.name in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"version https://git-lfs.github.com/spec/v1\n", b"\x05" + bytes(20)]
)
def test_another_kind_of_file_is_named(content: bytes, weights: Path) -> None:
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_header(weights)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights"):
        check_weights(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_on_disk_is_float32_in_memory(dtype: torch.dtype, model: DiT, tmp_path: Path) -> None:
    save_half(model, tmp_path, dtype)
    on_disk = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in on_disk.values()} == {dtype}
    loaded = DiT.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32 and loaded.config.width == 16
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.to(dtype).float())
    assert model.dtype == torch.float32


def test_a_saved_model_does_not_say_where_it_came_from(model: DiT, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "first")
    save_half(DiT.from_pretrained(tmp_path / "first"), tmp_path / "second")
    assert str(tmp_path) not in (tmp_path / "second" / "config.json").read_text()
    assert DiT.from_pretrained(tmp_path / "second").config.width == 16


def test_a_weight_beyond_float16_is_refused(model: DiT, tmp_path: Path) -> None:
    model.final.linear.weight.data[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"final\.linear\.weight"):
        save_half(model, tmp_path)
    save_half(model, tmp_path, torch.bfloat16)


def test_weights_that_do_not_fit_are_named(model: DiT) -> None:
    state = model.state_dict()
    wide = DiT(**{**SIZES, "width": 32})
    with pytest.raises(CheckpointError, match=r"f\.pt.*has shape \(16, 16\) instead of \(32, 16\)"):
        load_strict(wide, state, source="f.pt")
    state["extra"] = state.pop("label_embed.weight")
    with pytest.raises(CheckpointError, match=r"label_embed\.weight is missing; extra is not known"):
        load_strict(model, state, source="f.pt")


def test_a_folder_appears_whole_or_not_at_all(model: DiT, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), checkpoint_folder(out) as folder:
        model.save_pretrained(folder)
        raise KeyboardInterrupt
    assert not any(tmp_path.iterdir())
    with checkpoint_folder(out) as folder:
        model.save_pretrained(folder / "denoiser")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert component_sizes(out) == {"denoiser": model.num_parameters()}


def test_a_folder_replaces_only_a_checkpoint(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--overwrite"), checkpoint_folder(tmp_path):
        pass
    with checkpoint_folder(tmp_path, overwrite=True) as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    with pytest.raises(InputError, match="no checkpoint"), checkpoint_folder(tmp_path, overwrite=True):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PolyditError, match="could not write"), checkpoint_folder(tmp_path / "file" / "out"):
        pass


def test_a_card_has_fields_and_text(tmp_path: Path) -> None:
    assert read_card(tmp_path).fields == {}
    (tmp_path / "card.md").write_text(
        '---\nlicence: MIT\nmeasured: {"valid": 0.9}\nseed: 3\n---\n# Name\ntext: a\n'
    )
    card = read_card(tmp_path)
    assert card.fields == {"licence": "MIT", "measured": {"valid": 0.9}, "seed": 3}
    assert card.text == "# Name\ntext: a"


def test_key_maps_go_both_ways() -> None:
    keys = KeyMap(
        {"layers.{n}.lin{m}.{p}": "blocks.{n}.fc{m}.{p}", "head.weight": "final.weight"}, dropped=["table"]
    )
    theirs = {"layers.10.lin2.bias": 1, "head.weight": 2}
    ours = keys.to_ours({**theirs, "table": 3})
    assert ours == {"blocks.10.fc2.bias": 1, "final.weight": 2}
    assert keys.to_theirs(ours) == theirs
    assert count_blocks(ours) == 1 and count_blocks({"blocks.0.a": 1, "blocks.0.b": 2, "blocks.1.a": 3}) == 2
    assert below("final.", ours) == {"weight": 2}
    with pytest.raises(CheckpointError, match=r"a\.pt.*layers\.1\.lin2\.scale"):
        keys.to_ours({"layers.1.lin2.scale": 1}, source="a.pt")
