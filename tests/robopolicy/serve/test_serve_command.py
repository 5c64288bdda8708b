"""`robopolicy serve` as a user calls it: it serves until it is stopped, and finds wrong options before any weight."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from polydit.core.errors import PolyditError
from polydit.robopolicy.serve.client import PolicyClient

SECRET = "a-secret-of-sixteen-or-more"
Observation = Mapping[str, np.ndarray | str]


@contextmanager
def command(folder: Path, *arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    program = Path(sys.executable).parent / "robopolicy"
    line = [program, "serve", "--checkpoint", folder, "--port", 0, "--device", "cpu", *arguments]
    process = subprocess.Popen(
        [str(word) for word in line],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_serves_until_it_is_stopped(
    number: int, code: int, tiny_folder: Path, observation: Observation
) -> None:
    with command(tiny_folder, "--json", ROBOPOLICY_TOKEN=SECRET) as process:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        assert (started["event"], started["checkpoint"], started["token"]) == ("listening", "tiny", True)
        client = PolicyClient(started["url"], SECRET)  # still connected when the server is stopped
        assert client.select_action(observation).shape == (3,)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30.0)
        assert process.returncode == code, errors
        assert "came" in errors and "after 1 answers" in errors
        assert "Traceback" not in errors and SECRET not in errors
        with pytest.raises(PolyditError, match="the connection is lost"):
            client.select_action(observation)


def test_wrong_options_are_found_before_any_weight(
    invoke: Callable[..., Result], tiny_folder: Path, tmp_path: Path
) -> None:
    from polydit.robopolicy.cli import robopolicy

    short = tmp_path / "token.txt"
    short.touch(mode=0o600)
    short.write_text("short")

    def refused(*arguments: object, **environment: str) -> str:
        result = invoke(robopolicy, "serve", *arguments, **environment)
        assert result.exit_code == 2, result.output
        assert SECRET not in result.output
        return result.stderr

    assert "expected a token in --token-file" in refused("--host", "0.0.0.0", "--checkpoint", tiny_folder)
    assert "--token-file" in refused("--token", SECRET)  # a command line is seen by everyone on the machine
    assert "No such file" in refused("--token-file", tmp_path / "none")
    assert "this is no token" in refused("--token-file", short)
    assert "no such folder" in refused("--checkpoint", "nowhere")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "cannot listen there" in refused(
            "--checkpoint", tiny_folder, "--port", port, "--device", "cpu"
        )
