"""The values of the shared options, and what is said when they are wrong."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest
from click.testing import Result

from polydit.core.cli.options import (
    AutoInt,
    CommaList,
    DeviceType,
    Shard,
    ShardType,
    num_samples_option,
    run_options,
    seed_option,
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (AutoInt(), "auto", "auto"),
        (AutoInt(), "7", 7),
        (AutoInt(minimum=0), 0, 0),
        (ShardType(), "0/4", Shard(0, 4)),
        (DeviceType(), "cuda:1", "cuda:1"),
        (CommaList(["sdf", "xyz"]), "xyz, sdf,xyz", ("xyz", "sdf")),
        (CommaList(["sdf", "xyz"]), ["xyz"], ("xyz",)),
    ],
)
def test_accepted(kind: click.ParamType, text: object, value: object) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (AutoInt(), "0", "0 is below 1"),
        (AutoInt(), "many", "neither 'auto' nor a whole number"),
        (ShardType(), "4/4", "0 <= I < N"),
        (ShardType(), "1", "0 <= I < N"),
        (DeviceType(), "gpu", "not one of auto, cpu"),
        (CommaList(["sdf", "xyz"]), "pdb", "'pdb' is not one of sdf, xyz"),
    ],
)
def test_refused(kind: click.ParamType, text: object, words: str) -> None:
    with pytest.raises(click.BadParameter, match=words):
        kind.convert(text, None, None)


def test_shards_share_the_items_out() -> None:
    shards = [Shard(index, 3) for index in range(3)]
    assert [sum(shard.owns(position) for shard in shards) for position in range(10)] == [1] * 10
    assert str(shards[1]) == "1/3"


def test_a_shared_option_takes_changes(invoke: Callable[..., Result]) -> None:
    @click.command()
    @num_samples_option(default=3)
    @seed_option
    def show(num_samples: int, seed: int) -> None:
        click.echo((num_samples, seed))

    assert invoke(show).stdout == "(3, 0)\n"
    assert invoke(show, "--num-samples", 0, "--seed", 2**63 - 1).stdout == f"(0, {2**63 - 1})\n"
    assert invoke(show, "--num-samples", -1).exit_code == 2


def test_output_options_arrive_as_one_object(invoke: Callable[..., Result]) -> None:
    @click.command()
    @run_options
    def show(output: object, **options: object) -> None:
        click.echo(output)

    result = invoke(show, "-o", "x", "-vv", "--quiet", "--json")
    assert result.stdout == "Output(json=True, quiet=True, verbose=2)\n"
