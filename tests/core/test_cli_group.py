"""A domain's group: lazy commands, and every error as a sentence with its exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import pytest
from click.testing import Result

from polydit.core.cli.group import DomainGroup
from polydit.core.cli.options import output_options
from polydit.core.cli.output import Output
from polydit.core.errors import InputError, PolyditError

Invoke = Callable[..., Result]
ERRORS = {
    "input": InputError(
        "no atoms", where="a.sdf, record 3", expected="at least one", hint="Remove the record"
    ),
    "failed": PolyditError("the checkpoint is truncated"),
    "disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/items"),
    "bug": KeyError("x"),
    "interrupt": KeyboardInterrupt(),
}


@click.group(
    name="demo", cls=DomainGroup, lazy={"absent": ("polydit.nowhere:absent", "Never imported for help.")}
)
def demo() -> None:
    """A domain whose command fails in every way."""


@demo.command()
@click.argument("how")
@output_options
def fail(how: str, output: Output) -> None:
    """Fail as told."""
    raise ERRORS[how]


@demo.command()
@click.option("--ready", required=True)
@output_options
def wait(ready: str, output: Output) -> None:
    """Wait for a signal."""
    Path(ready).touch()
    time.sleep(60)


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("input", 2, "Error: a.sdf, record 3: no atoms; expected at least one. Remove the record\n"),
        ("failed", 1, "Error: the checkpoint is truncated\n"),
        ("disk", 1, "Error: [Errno 28] No space left on device: 'run/items'\n"),
        ("bug", 1, "Error: unexpected KeyError: 'x'. Run again with --debug for the traceback.\n"),
        ("interrupt", 130, "Interrupted. Run the same command again to continue.\n"),
    ],
)
def test_an_error_is_a_sentence_with_an_exit_code(invoke: Invoke, how: str, code: int, message: str) -> None:
    result = invoke(demo, "fail", how)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", message)


def test_debug_shows_the_traceback(invoke: Invoke) -> None:
    result = invoke(demo, "fail", "bug", "--debug")
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback") and result.stderr.endswith("traceback.\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_unwinds_and_gives_its_exit_code(tmp_path: Path, number: signal.Signals, code: int) -> None:
    ready = tmp_path / "ready"
    script = f"import runpy; runpy.run_path({__file__!r})['demo'](['wait', '--ready', {str(ready)!r}])"
    # a process started in the background of a shell script ignores Ctrl-C, and so would its children
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, preexec_fn=listen
    ) as process:
        while not ready.exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        process.send_signal(number)
        message = process.communicate(timeout=30)[1]
    assert process.returncode == code
    assert message.endswith("Run the same command again to continue.\n")


def test_help_imports_no_command(invoke: Invoke) -> None:
    result = invoke(demo, "--help")
    assert result.exit_code == 0
    assert "absent" in result.stdout and "Never imported for help." in result.stdout


def test_a_misspelt_command_or_option_is_answered(invoke: Invoke) -> None:
    assert "Did you mean 'fail'?" in invoke(demo, "fial").stderr
    assert "Did you mean '--ready'?" in invoke(demo, "wait", "--redy", "x").stderr
    assert invoke(demo, "fial").exit_code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_the_shell(invoke: Invoke, shell: str) -> None:
    result = invoke(demo, "completion", shell)
    assert result.exit_code == 0
    assert "_DEMO_COMPLETE" in result.stdout


def test_version_names_the_distributions(invoke: Invoke) -> None:
    assert invoke(demo, "--version").stdout.startswith("polydit-core ")
