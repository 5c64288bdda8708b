"""`polydit doctor` and `polydit list`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

from polydit.core.cli import doctor as doctor_module
from polydit.core.cli.domains import Domain, Finding, installed_domains
from polydit.core.cli.main import polydit

Invoke = Callable[..., Result]


def broken() -> Finding:
    raise RuntimeError("the library is broken")


def test_list_shows_every_checkpoint_with_its_licence(invoke: Invoke) -> None:
    result = invoke(polydit, "list", "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    known = {(domain.command, entry.name) for domain in installed_domains() for entry in domain.checkpoints}
    assert {(row["command"], row["checkpoint"]) for row in rows} == known
    assert all(row["licence"] for row in rows)
    assert "licence" in invoke(polydit, "list").stdout


def test_list_says_how_to_install_a_domain(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda group: ())
    assert "pip install" in invoke(polydit, "list").stderr


def test_doctor_reports_every_check_and_ends_with_a_verdict(invoke: Invoke) -> None:
    result = invoke(polydit, "doctor", "--json")
    *findings, summary = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"python", "polydit-core", "torch", "device", "disk", "cache"} <= {f["name"] for f in findings}
    assert [f for f in findings if f["status"] == "fail"] == []
    assert (summary["event"], summary["status"], result.exit_code) == ("summary", "ok", 0)


def test_a_check_that_raises_fails_alone(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = Domain(
        name="demo", summary="", distribution="polydit-core", command="demo", checks=(f"{__name__}:broken",)
    )
    monkeypatch.setattr(doctor_module, "installed_domains", lambda: [domain])
    result = invoke(polydit, "doctor")
    assert result.exit_code == 1
    assert "fail demo broken: RuntimeError: the library is broken" in result.stdout
    assert "ok   torch" in result.stdout


def test_doctor_names_a_sibling_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["polydit-core==9.9", 'numpy; extra == "x"'])
    finding = doctor_module.check_distribution("polydit-core")
    assert finding.status == "fail"
    assert "polydit-core==9.9 is needed" in finding.detail and "./shared/core" in finding.fix


def test_doctor_gives_the_command_for_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["no-such-library>=2"])
    finding = doctor_module.check_distribution("polydit-core")
    assert (finding.status, finding.fix) == ("fail", 'pip install "no-such-library>=2"')


def test_modules_that_cannot_be_imported_are_named() -> None:
    found = doctor_module.check_imports("demo formats", ("json", "email.mime"), fix="pip install it")
    assert (found.status, found.detail, found.fix) == ("ok", "json, email.mime", "")
    found = doctor_module.check_imports("demo formats", ("json", "no_such_module"), fix="pip install it")
    assert (found.status, found.fix) == ("fail", "pip install it")
    assert found.detail.startswith("no_such_module: ")


@pytest.mark.parametrize(("free", "status"), [(2**36, "ok"), (2**29, "warn"), (2**20, "fail")])
def test_doctor_warns_before_the_disk_is_full(
    monkeypatch: pytest.MonkeyPatch, free: int, status: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    finding = doctor_module.check_disk()
    assert finding.status == status
    assert bool(finding.fix) == (status != "ok")


def test_doctor_says_where_to_put_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "file"))
    finding = doctor_module.check_cache()
    assert finding.status == "warn"
    assert finding.fix.startswith("export HF_HOME=")
