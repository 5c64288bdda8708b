"""`robopolicy info`, and what robopolicy adds to `polydit doctor` and `polydit list`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import Result

from polydit.core.cli import doctor
from polydit.core.cli.domains import Finding, installed_domains
from polydit.robopolicy import domain
from polydit.robopolicy.cli import robopolicy

Invoke = Callable[..., Result]


def described(invoke: Invoke, folder: Path) -> dict[str, object]:
    done = invoke(robopolicy, "info", folder, "--json")
    assert done.exit_code == 0, done.output
    record: dict[str, object] = json.loads(done.stdout)
    return record


def test_info_tells_what_a_policy_needs_and_knows(invoke: Invoke, tiny_folder: Path) -> None:
    record = described(invoke, tiny_folder)
    assert record["model"] == "rdt" and record["robot_type"] == "test arm"
    assert record["fps"] == 20.0 and record["execute"] == 2
    assert record["sizes"] == {"observation.state": 5, "action": 3}
    assert record["instructions"] == ["open the drawer", "push the button"]
    assert "image_size" not in record and "num_steps" not in record
    parameters = record["parameters"]
    assert isinstance(parameters, dict) and list(parameters) == ["network"]  # scales are no parameters
    text = invoke(robopolicy, "info", tiny_folder).stdout
    assert "model: rdt" in text and "sizes: observation.state 5, action 3" in text


def test_info_shows_the_card(invoke: Invoke, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(tiny_folder, folder)
    (folder / "card.md").write_text("---\ndata: 50 demonstrations\n---\n# Of a test\n")
    record = described(invoke, folder)
    assert (record["data"], record["card"]) == ("50 demonstrations", "# Of a test")


def test_info_lists_the_known_checkpoints(invoke: Invoke) -> None:
    done = invoke(robopolicy, "info", "--list", "--json")
    assert done.exit_code == 0, done.output
    (first, *_) = [json.loads(line) for line in done.stdout.splitlines()]
    assert first["checkpoint"] == "starter" and first["licence"] == "Apache-2.0"


@pytest.mark.parametrize("name", ["normalizer.safetensors", "instructions.json", "model_index.json"])
def test_a_folder_that_lacks_a_part_is_no_policy(
    invoke: Invoke, tiny_folder: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(tiny_folder, folder)
    (folder / name).unlink()
    done = invoke(robopolicy, "info", folder)
    assert done.exit_code == 2 and name in done.stderr and "Traceback" not in done.stderr


def test_info_of_a_file_names_the_command(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK")
    done = invoke(robopolicy, "info", tmp_path / "model.pt")
    assert done.exit_code == 2 and "robopolicy convert" in done.stderr


# --- doctor ---------------------------------------------------------------------------------------------


def test_the_domain_is_installed_with_its_checks() -> None:
    (found,) = [entry for entry in installed_domains() if entry.name == "robopolicy"]
    assert found is domain.DOMAIN
    findings = {finding.name: finding for finding in map(run_check, found.checks)}
    assert {"robopolicy formats", "robopolicy simulators", "robopolicy pictures"} <= findings.keys()
    assert findings["robopolicy formats"].status == "ok"


def run_check(reference: str) -> Finding:
    import pkgutil

    return doctor._guarded(pkgutil.resolve_name(reference), reference)


def test_the_simulators_are_named_and_the_missing_one_has_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {"metaworld": "3.1.1", "gym-pusht": "0.1.8"}

    def version(name: str) -> str:
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(metadata, "version", version)
    finding = domain.check_simulators()
    assert finding.status == "ok"
    assert finding.detail == "metaworld 3.1.1, gym-pusht 0.1.8; not installed: gymnasium-robotics [fetch]"
    known.clear()
    finding = domain.check_simulators()
    assert (finding.status, finding.detail) == ("warn", "none is installed")
    assert finding.fix == 'pip install ./shared/core "./packages/robopolicy[metaworld]"'


def test_a_policy_that_works_is_found_to_work(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    from dataclasses import replace

    from polydit.robopolicy import checkpoint

    here = replace(domain.STARTER, location=f"package://polydit.robopolicy/{tiny_folder}")
    monkeypatch.setattr(domain, "STARTER", here)
    monkeypatch.setattr(checkpoint.Checkpoint, "domain", replace(domain.DOMAIN, checkpoints=(here,)))
    assert domain.check_starter().detail == "loads, and planned 6 actions"


def test_a_missing_starter_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    gone = replace(domain.STARTER, location="package://polydit.robopolicy/nowhere")
    monkeypatch.setattr(domain, "STARTER", gone)
    finding = domain.check_starter()
    assert finding.status == "fail" and "nowhere" in finding.detail and finding.fix.startswith("pip install")
