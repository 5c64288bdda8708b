"""`--help` answers at once: no command imports a heavy library to be described."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "scipy",
    "pandas",
    "matplotlib",
    "rdkit",
    "pymatgen",
    "ase",
    "pyarrow",
    "av",
    "h5py",
    "gymnasium",
    "metaworld",
    "mujoco",
    "websockets",
    "msgpack",
)
WALK = """
import json, sys
import click
from importlib.metadata import entry_points

heavy, seen = set(sys.argv[2].split(",")), {}

def walk(command, ctx, path):
    assert command.get_help(ctx)
    seen[path] = sorted(heavy & set(sys.modules))
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            walk(child, click.Context(child, info_name=name, parent=ctx), f"{path} {name}")

(point,) = entry_points(group="console_scripts", name=sys.argv[1])
group = point.load()
walk(group, click.Context(group, info_name=sys.argv[1]), sys.argv[1])
print(json.dumps(seen))
"""


@pytest.mark.parametrize("program", ["molgen", "pointgen", "polydit", "robopolicy", "vstain"])
def test_help_of_every_command_is_light(program: str) -> None:
    line = [sys.executable, "-c", WALK, program, ",".join(HEAVY)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert len(seen) > 3
    assert {path: modules for path, modules in seen.items() if modules} == {}
