"""A domain's checkpoint folders, and the command `info` that every domain gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import torch
from click.testing import Result
from safetensors.torch import save_file

from polydit.core.checkpoints.checkpoint import INDEX, Checkpoint, read_index
from polydit.core.cli.domains import CheckpointEntry, Domain
from polydit.core.cli.group import DomainGroup
from polydit.core.cli.info import info_command
from polydit.core.errors import CheckpointError

Invoke = Callable[..., Result]
STARTER = CheckpointEntry(
    name="starter",
    location="package://polydit.core/starter",
    licence="Apache-2.0",
    parameters=5,
    summary="Toy",
)
DOMAIN = Domain(name="demo", summary="", distribution="polydit-core", command="demo", checkpoints=(STARTER,))


class Demo(Checkpoint):
    domain = DOMAIN
    program = "DemoPipeline"
    required = frozenset({"num_steps"})

    def facts(self) -> dict[str, object]:
        return {"num_steps": self.index["num_steps"], "unset": ""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "toy"
    (root / "network").mkdir(parents=True)
    (root / INDEX).write_text(json.dumps({"_class_name": "DemoPipeline", "num_steps": 7}))
    save_file({"a": torch.ones(2, 1500)}, root / "network" / "weights.safetensors")
    save_file({"mean": torch.ones(4)}, root / "statistics.safetensors")
    (root / "card.md").write_text(
        '---\ndata: ["x", "y"]\ntasks: ["open it", "go"]\nlicence: CC-BY-4.0\n---\n# Toy\n'
    )
    return root


def test_a_folder_is_found_and_described(folder: Path) -> None:
    found = Demo.find(str(folder))
    assert isinstance(found, Demo) and (found.name, found.licence) == ("toy", "")
    record = found.describe()
    assert record["parameters"] == {"network": 3000}  # statistics beside the networks are none
    assert (record["num_steps"], record["data"], record["card"]) == (7, ["x", "y"], "# Toy")
    assert record["licence"] == "CC-BY-4.0"
    assert found.provenance()["sha256"] == record["sha256"] == found.sha256
    before = found.sha256
    (folder / "card.md").write_text("other words")
    assert Demo.find(str(folder)).sha256 == before
    (folder / INDEX).write_text(json.dumps({"_class_name": "DemoPipeline", "num_steps": 8}))
    assert Demo.find(str(folder)).sha256 != before


def test_what_is_no_checkpoint_of_the_domain_is_named(folder: Path, tmp_path: Path) -> None:
    def refused(content: object) -> str:
        (folder / INDEX).write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(CheckpointError) as caught:
            Demo.find(str(folder))
        return str(caught.value)

    assert "of another kind: Flux; expected DemoPipeline" in refused({"_class_name": "Flux"})
    assert "of another kind: None" in refused([1, 2])
    assert "lacks num_steps" in refused({"_class_name": "DemoPipeline"})
    assert f"{INDEX}: cannot be read" in refused('{"_class')
    (folder / INDEX).unlink()
    with pytest.raises(CheckpointError, match=f"expected {INDEX}"):
        read_index(folder, program="DemoPipeline")
    (tmp_path / "model.ckpt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"run: demo convert .*model\.ckpt --out FOLDER"):
        Demo.find(str(tmp_path / "model.ckpt"))


def test_the_command_shows_what_is_known(folder: Path, invoke: Invoke) -> None:
    @click.group(name="demo", cls=DomainGroup)
    def demo() -> None:
        """A domain."""

    demo.add_command(info_command(DOMAIN, f"{__name__}:Demo"))
    text = invoke(demo, "info", folder).stdout
    assert "parameters: network 3,000" in text and "data: x y" in text and "tasks: open it; go" in text
    assert text.endswith("\n\n# Toy\n")
    assert "unset" not in text and "limits" not in text
    record = json.loads(invoke(demo, "info", folder, "--json").stdout)
    assert record["num_steps"] == 7 and record["path"] == str(folder)
    (row,) = [json.loads(line) for line in invoke(demo, "info", "--list", "--json").stdout.splitlines()]
    assert (row["checkpoint"], row["here"], row["parameters"]) == ("starter", "no", 5)
    absent = invoke(demo, "info")
    assert absent.exit_code == 2 and "not part of this installation" in absent.stderr
