"""Published pickles are read without running what they name, and everything odd is refused by name."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from polydit.core.checkpoints.safe_pickle import Stub, load_pickled
from polydit.core.errors import CheckpointError

TENSORS = {
    "float": torch.randn(3, 4),
    "transposed": torch.arange(12.0).reshape(3, 4).T,
    "half": torch.randn(5).half(),
    "bfloat": torch.randn(5).bfloat16(),
    "double": torch.randn(2, dtype=torch.float64),
    "long": torch.tensor([[1, -2]]),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(2.5),
    "empty": torch.empty(0, 3),
}


def rewritten(
    source: Path, target: Path, change: Callable[[str, bytes], bytes], compression: int = 0
) -> Path:
    """The zip again, with each record's bytes changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for record in old.infolist():
            new.writestr(record.filename, change(record.filename, old.read(record)), compression)
    return target


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.ones(4)}, path)
    return path


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_are_those_of_torch_load(name: str, tmp_path: Path) -> None:
    torch.save(TENSORS[name], tmp_path / "t.pt")
    ours, theirs = load_pickled(tmp_path / "t.pt"), torch.load(tmp_path / "t.pt", weights_only=True)
    assert ours.dtype == theirs.dtype and ours.stride() == theirs.stride()
    assert torch.equal(ours, theirs)


def test_containers_numbers_and_parameters_are_kept(tmp_path: Path) -> None:
    module = nn.Linear(2, 3)
    content = {
        "state": OrderedDict(module.named_parameters()),
        "counts": defaultdict(int, {"a": 1}),
        "list": [1, 2.5, None, True, "text", (1, 2), {3}],
    }
    torch.save(content, tmp_path / "c.pt")
    loaded = load_pickled(tmp_path / "c.pt")
    assert loaded["list"] == content["list"] and loaded["counts"]["missing"] == 0
    assert torch.equal(loaded["state"]["weight"], module.weight)
    assert not isinstance(loaded["state"]["weight"], nn.Parameter)


def test_views_share_their_storage(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    torch.save({"whole": whole, "tail": whole[6:]}, tmp_path / "v.pt")
    loaded = load_pickled(tmp_path / "v.pt")
    assert loaded["tail"].tolist() == [6, 7, 8, 9]
    assert loaded["tail"].untyped_storage().data_ptr() == loaded["whole"].untyped_storage().data_ptr()


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch MARK",), r"(posix|nt)\.system"),
        (subprocess.Popen, (["touch", "MARK"],), r"subprocess\.Popen"),
        (eval, ("open('MARK', 'w')",), r"builtins\.eval"),
        (getattr, ("", "join"), r"builtins\.getattr"),
        (bytearray, (10**12,), r"builtins\.bytearray"),
        (torch.hub.load, ("owner/name", "model"), r"torch\.hub\.load"),
    ],
)
def test_a_foreign_name_is_refused_and_told(
    function: Callable[..., Any], arguments: tuple[Any, ...], name: str, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    arguments = tuple(a.replace("MARK", str(mark)) if isinstance(a, str) else a for a in arguments)
    path = tmp_path / "evil.pt"
    torch.save({"weight": torch.ones(2), "extra": Runs(function, *arguments)}, path)
    with pytest.raises(CheckpointError, match=name) as caught:
        load_pickled(path, inert=["src.", "torch.nn."])
    assert str(path) in str(caught.value) and caught.value.exit_code == 2
    assert not mark.exists()


def test_an_inert_name_is_not_run_either(tmp_path: Path) -> None:
    path, mark = tmp_path / "evil.pt", tmp_path / "mark"
    torch.save({"extra": Runs(os.system, f"touch {mark}")}, path)
    stub = load_pickled(path, inert=["posix.", "nt."])["extra"]
    assert isinstance(stub, Stub) and stub.args == (f"touch {mark}",)
    assert not mark.exists()


def test_live_objects_of_a_program_that_is_gone_become_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = types.ModuleType("vanished.program")

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = 4
            self.inner = nn.Linear(2, 2)

    class Settings(dict):  # type: ignore[type-arg]
        pass

    for kind in (Network, Settings):
        kind.__module__, kind.__qualname__ = program.__name__, kind.__name__
        setattr(program, kind.__name__, kind)
    path = tmp_path / "live.pt"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "vanished", types.ModuleType("vanished"))
        patch.setitem(sys.modules, program.__name__, program)
        torch.save({"network": Network(), "settings": Settings(rate=1e-4)}, path)
    loaded = load_pickled(path, inert=["vanished.", "torch.nn."])
    assert loaded["network"].name == "vanished.program.Network"
    assert loaded["network"].attribute("heads") == 4
    assert loaded["network"].attribute("inner").attribute("in_features") == 2
    assert loaded["settings"].items == [("rate", 1e-4)]
    with pytest.raises(CheckpointError, match=r"vanished\.program\.Network"):
        load_pickled(path)


def test_a_namespace_can_be_allowed(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pt")
    assert load_pickled(tmp_path / "a.pt", inert=["argparse."])["args"].state == {"lr": 0.1}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_named(share: float, saved: Path) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"truncated|not a checkpoint") as caught:
        load_pickled(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n", "not a checkpoint of torch.save"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
    ],
)
def test_another_kind_of_file_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_pickled(path)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_pickled(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_pickled(tmp_path)


def test_a_zip_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(CheckpointError, match=r"not a checkpoint of torch\.save"):
        load_pickled(path)


def test_a_torchscript_program_is_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("weights/constants.pkl", b"")
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_pickled(saved)


def test_a_declared_size_beyond_the_record_takes_no_memory(saved: Path, tmp_path: Path) -> None:
    def forge(name: str, content: bytes) -> bytes:
        four, many = b"K\x04t", b"J\xff\xff\xff\x7ft"  # BININT1 4, BININT 2³¹-1
        return content.replace(four, many) if name.endswith("data.pkl") else content

    with pytest.raises(CheckpointError, match="declares 8589934588 bytes"):
        load_pickled(rewritten(saved, tmp_path / "forged.pt", forge))


def test_a_tensor_beyond_its_storage_is_refused(saved: Path, tmp_path: Path) -> None:
    def forge(name: str, content: bytes) -> bytes:
        return content.replace(b"K\x04\x85", b"K\x05\x85") if name.endswith("data.pkl") else content

    with pytest.raises(CheckpointError, match="larger than its storage"):
        load_pickled(rewritten(saved, tmp_path / "forged.pt", forge))


def test_a_compressed_file_is_refused(saved: Path, tmp_path: Path) -> None:
    packed = rewritten(saved, tmp_path / "packed.pt", lambda name, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        load_pickled(packed)


def test_a_flipped_byte_is_found(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    at = content.index(torch.ones(4).numpy().tobytes())
    content[at] ^= 1
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_pickled(saved)
