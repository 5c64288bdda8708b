"""A command `convert`: its card, its summary, and a place that is taken."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from polydit.core.checkpoints.folder import read_card
from polydit.core.cli.conversion import Conversion, conversion_options
from polydit.core.cli.group import DomainGroup
from polydit.core.errors import CheckpointError

Convert = Callable[..., Result]


@click.group(name="demo", cls=DomainGroup)
def demo() -> None:
    """A domain that reads any file."""


@demo.command()
@click.option("--weights", default="")
@conversion_options
def convert(weights: str, call: Conversion) -> None:
    """Convert."""
    if not call.source.is_file():
        raise CheckpointError("there is no such file", where=str(call.source))
    content = call.source.read_bytes()

    def save(folder: Path) -> None:
        if b"broken" in content:
            raise CheckpointError("holds no network", where=str(call.source))
        (folder / "network.safetensors").write_bytes(content)

    size = {"bytes": len(content)}
    call.finish(save, about="It was read.", weights=weights, facts=size, lines=[f"{len(content)} bytes"])


@pytest.fixture
def run(invoke: Convert, tmp_path: Path) -> Convert:
    (tmp_path / "old.pt").write_bytes(b"weights")
    (tmp_path / "bad.pt").write_bytes(b"broken")
    return lambda *words: invoke(demo, "convert", *words)


def test_the_folder_gets_a_card_and_the_summary_its_digest(run: Convert, tmp_path: Path) -> None:
    done = run("old.pt", "--out", "new", "--weights", "ema")
    assert done.exit_code == 0, done.output
    assert done.stdout == "7 bytes\ncheckpoint: new\n"
    digest = hashlib.sha256(b"weights").hexdigest()
    card = read_card(tmp_path / "new")
    assert card.fields == {
        "source": "old.pt",
        "source_sha256": digest,
        "weights": "ema",
        "licence": "as stated where old.pt was published",
    }
    assert card.text == "# Converted from old.pt\n\nIt was read."
    again = json.loads(run("old.pt", "--out", "new", "--overwrite", "--json").stdout)
    assert again == {"event": "summary", "out": "new", "source": "old.pt", "sha256": digest, "bytes": 7}
    assert "weights" not in read_card(tmp_path / "new").fields


def test_a_place_that_is_taken_is_refused_before_the_file_is_read(run: Convert, tmp_path: Path) -> None:
    assert run("old.pt", "--out", "new").exit_code == 0
    refused = run("absent.pt", "--out", "new")
    assert refused.exit_code == 2 and "--overwrite" in refused.stderr
    broken = run("bad.pt", "--out", "new", "--overwrite")
    assert broken.exit_code == 2 and "no network" in broken.stderr
    assert (tmp_path / "new" / "network.safetensors").read_bytes() == b"weights"
