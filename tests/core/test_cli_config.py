"""Where the value of an option comes from: command line, environment, file, default."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from click.testing import Result

from polydit.core.cli.config import apply_settings, effective_options
from polydit.core.cli.group import DomainGroup
from polydit.core.cli.options import (
    CommaList,
    checkpoint_option,
    guidance_scale_option,
    num_samples_option,
    run_options,
    seed_option,
    set_option,
)
from polydit.core.cli.output import Output
from polydit.core.errors import InputError

Invoke = Callable[..., Result]


@click.group(name="demo", cls=DomainGroup)
def demo() -> None:
    """A domain with two commands that tell what reached them."""


@demo.command()
@num_samples_option
@seed_option
@guidance_scale_option
@checkpoint_option
@click.option("--format", "formats", type=CommaList(["sdf", "xyz"]), default="sdf")
@run_options
@click.pass_context
def sample(ctx: click.Context, output: Output, **options: object) -> None:
    output.item({name: option._asdict() for name, option in effective_options(ctx).items()})


@demo.command()
@seed_option
@set_option
@run_options
@click.pass_context
def train(ctx: click.Context, output: Output, settings: dict[str, object], **options: object) -> None:
    output.item({name: option._asdict() for name, option in effective_options(ctx).items()})


def options_of(result: Result) -> dict[str, dict[str, object]]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_precedence_is_command_line_then_environment_then_file_then_default(invoke: Invoke) -> None:
    Path("c.toml").write_text("seed = 3\nnum_samples = 3\nguidance-scale = 3.0\n")
    result = invoke(
        demo, "sample", "-o", "x", "--json", "--config", "c.toml", "--seed", 1,
        DEMO_SAMPLE_SEED="2", DEMO_SAMPLE_NUM_SAMPLES="2",
    )  # fmt: skip
    options = options_of(result)
    assert options["seed"] == {"value": 1, "source": "command line"}
    assert options["num_samples"] == {"value": 2, "source": "environment"}
    assert options["guidance_scale"] == {"value": 3.0, "source": "config file"}
    assert options["batch_size"] == {"value": "auto", "source": "default"}


@pytest.mark.parametrize("given", ["command line", "environment", "config file"])
def test_zero_is_a_value(invoke: Invoke, given: str) -> None:
    Path("c.toml").write_text("guidance_scale = 0\nnum_samples = 0\nlimit = 0\n")
    arguments = {
        "command line": ["--guidance-scale", 0, "--num-samples", 0, "--limit", 0],
        "environment": [],
        "config file": ["--config", "c.toml"],
    }[given]
    names = ("GUIDANCE_SCALE", "NUM_SAMPLES", "LIMIT")
    environment = {f"DEMO_SAMPLE_{name}": "0" for name in names} if given == "environment" else {}
    options = options_of(invoke(demo, "sample", "-o", "x", "--json", *arguments, **environment))
    for name in names:
        assert options[name.lower()] == {"value": 0, "source": given}


def test_run_json_repeats_a_run(invoke: Invoke) -> None:
    first = options_of(
        invoke(demo, "sample", "-o", "a", "--json", "--seed", 7, "--format", "xyz", "--shard", "1/4")
    )
    Path("run.json").write_text(json.dumps({"command": "demo sample", "options": first}))
    again = options_of(invoke(demo, "sample", "--config", "run.json", "-o", "b", "--json"))
    assert {name: option["value"] for name, option in again.items()} == {
        name: option["value"] for name, option in first.items()
    } | {"out": "b"}
    assert again["seed"]["source"] == "config file"


def test_run_json_of_another_command_is_refused(invoke: Invoke) -> None:
    Path("run.json").write_text(json.dumps({"command": "demo train", "options": {}}))
    result = invoke(demo, "sample", "--config", "run.json", "-o", "b")
    assert result.exit_code == 2
    assert "Repeat it with: demo train --config run.json" in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_sample = 3", ["num_sample", "Did you mean 'num_samples'?"]),
        ("[sample]\nsede = 3", ["sede", "Did you mean 'seed'?"]),
        ("[sample]\nseed = 3\n[trian]\nseed = 2", ["unknown command 'trian'", "Did you mean 'train'?"]),
        ("seed = ", ["c.toml: not a TOML file"]),
        ("seed = -1", ["-1 is not in the range"]),
        ("seed = 'many'", ["'many' is not a valid integer"]),
        ("json = true", ["unknown key 'json'"]),
    ],
)
def test_a_wrong_file_is_a_usage_error_that_helps(invoke: Invoke, text: str, words: list[str]) -> None:
    Path("c.toml").write_text(text)
    result = invoke(demo, "sample", "-o", "x", "--config", "c.toml")
    assert result.exit_code == 2
    for word in words:
        assert word in result.stderr


def test_one_file_serves_several_commands(invoke: Invoke) -> None:
    Path("c.toml").write_text("[sample]\nseed = 1\n[train]\nseed = 2\nmodel.width = 8\n")
    assert options_of(invoke(demo, "sample", "-o", "x", "--json", "--config", "c.toml"))["seed"]["value"] == 1
    trained = options_of(invoke(demo, "train", "-o", "x", "--json", "--config", "c.toml"))
    assert "settings.sample.seed" not in trained
    assert trained["seed"]["value"] == 2
    assert trained["settings.model.width"] == {"value": 8, "source": "config file"}


def test_set_changes_what_the_file_says_and_keeps_the_rest(invoke: Invoke) -> None:
    Path("c.toml").write_text("seed = 2\n[model]\nwidth = 8\nname = 'small'\n")
    line = ["train", "-o", "x", "--json", "--config", "c.toml", "--set", "model.width=16", "--set", "steps=0"]
    options = options_of(invoke(demo, *line))
    assert options["settings.model.width"] == {"value": 16, "source": "command line"}
    assert options["settings.model.name"] == {"value": "small", "source": "config file"}
    assert options["settings.steps"] == {"value": 0, "source": "command line"}

    Path("run.json").write_text(json.dumps({"command": "demo train", "options": options}))
    again = options_of(invoke(demo, "train", "--config", "run.json", "--json"))
    assert {k: v["value"] for k, v in again.items()} == {k: v["value"] for k, v in options.items()}


def test_set_without_a_value_is_refused(invoke: Invoke) -> None:
    result = invoke(demo, "train", "-o", "x", "--set", "width")
    assert result.exit_code == 2
    assert "'width' is not KEY=VALUE" in result.stderr


@dataclass(frozen=True)
class Model:
    width: int = 4
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    note: str | None = None

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")


@dataclass(frozen=True)
class Recipe:
    steps: int = 10
    model: Model = field(default_factory=Model)


def test_apply_settings_replaces_nested_values() -> None:
    recipe = apply_settings(Recipe(), {"steps": 0, "model.rate": 1, "model.sizes": [3], "model.note": "x"})
    assert recipe == Recipe(steps=0, model=Model(rate=1.0, sizes=(3,), note="x"))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model.widht", 3, "Did you mean 'model.width'?"),
        ("step", 3, "Did you mean 'steps'?"),
        ("model", 3, "is a table"),
        ("steps.many", 3, "is one value"),
        ("model.width", "wide", "expected int"),
        ("model.width", True, "expected int"),
        ("model.width", 0, "width must be at least 1, got 0"),
    ],
)
def test_apply_settings_names_what_is_wrong(key: str, value: object, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("?", r"\?")):
        apply_settings(Recipe(), {key: value})


@dataclass(frozen=True)
class Heads:
    width: int = 12
    heads: int = 3

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide {self.width}")


@pytest.mark.parametrize("keys", [("width", "heads"), ("heads", "width")])
def test_values_that_belong_together_may_come_in_any_order(keys: tuple[str, str]) -> None:
    wanted = {"width": 10, "heads": 5}
    assert apply_settings(Heads(), {key: wanted[key] for key in keys}) == Heads(10, 5)
    with pytest.raises(InputError, match="5 heads do not divide 12"):
        apply_settings(Heads(), {"heads": 5})
