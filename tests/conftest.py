"""What all tests share: no network, a clean environment, and the commands as a user calls them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from jaxtyping import config

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: a test that downloads must fail
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: each worker has one processor
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options set in the environment of whoever runs the tests must not reach a command."""
    for name in list(os.environ):
        if (
            name.startswith(("MOLGEN_", "POLYDIT_", "POINTGEN_", "ROBOPOLICY_", "VSTAIN_"))
            and name != "POLYDIT_GOLDEN_CASES"
        ):
            monkeypatch.delenv(name)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """`torch.compile` cannot look into the checks of shapes that the tests run with.

    It also counts how often a function was compiled, whichever test did that, and refuses the ninth time.
    """
    import torch

    torch._dynamo.reset()
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``invoke(group, "sample", "--out", "run", DEMO_SAMPLE_SEED="3")``: in this process, an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(command: click.Command, *arguments: object, **environment: str) -> Result:
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(command, words, prog_name=command.name, env=environment)

    return call


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``shell("molgen sample --out run", MOLGEN_SAMPLE_SEED="3")``: its own process, in an empty folder."""

    def call(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = shlex.split(line)
        path = sys.executable if program == "python" else str(Path(sys.executable).parent / program)
        return subprocess.run(
            [path, *arguments],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )

    return call
