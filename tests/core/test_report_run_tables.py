"""The tables that every report of a run ends with."""

from __future__ import annotations

from pathlib import Path

from polydit.core.cli.config import Option
from polydit.core.jobs import RunFolder, read_run
from polydit.core.report.run_tables import provenance_table, settings_table


def test_settings_and_provenance_are_those_of_the_run(tmp_path: Path) -> None:
    options = {"num_steps": Option(5, "command line"), "formats": Option(["a", "b"], "default")}
    options["limit"] = Option(None, "default")
    checkpoint = {"checkpoint": {"name": "mine", "sha256": "abc"}}
    with RunFolder.open(tmp_path, command="demo run", options=options, provenance=checkpoint) as folder:
        folder.note(device="cpu")
    run = read_run(tmp_path)
    settings = settings_table(run)
    assert settings.rows == [
        ("num-steps", "5", "command line"), ("formats", "a, b", "default"), ("limit", "-", "default"),
    ]  # fmt: skip
    assert "demo run --config run.json" in settings.note
    told = dict(provenance_table(run).rows)
    assert (told["status"], told["checkpoint name"], told["checkpoint sha256"]) == ("done", "mine", "abc")
    assert told["device"] == "cpu" and "python" in told
