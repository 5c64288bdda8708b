"""What `polydit calibrate` samples of a checkpoint of structures, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from polydit.core.errors import InputError
from polydit.core.sampling.calibration import Sampler, Setting
from polydit.molgen.calibration import latents, sampler


def test_latents_start_from_the_same_noise_whatever_the_setting(tiny_checkpoint: Path) -> None:
    found, made = sampler(str(tiny_checkpoint), 2, {"atoms": "9", "seed": "3"})
    assert isinstance(made, Sampler) and found.path == tiny_checkpoint
    assert made.default == Setting(num_steps=4, solver="euler")
    first = made(Setting(num_steps=8, solver="euler"))
    assert [len(rows) for rows in first] == [9, 9] and not torch.equal(*first)
    cached = made(Setting(num_steps=8, solver="euler", cache="newton"))
    assert not torch.equal(cached[0], first[0])
    again = latents(str(tiny_checkpoint), 2, {"atoms": "9", "seed": "3"})[1]
    assert all(map(torch.equal, again(Setting(num_steps=8, solver="euler")), first))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"colour": "red"}, "there is no colour; expected kind, atoms, formula or seed"),
        ({"kind": "polymer"}, "there is no kind 'polymer'; expected molecule or crystal"),
        ({"seed": "one"}, "seed is 'one'; expected a whole number"),
    ],
)
def test_a_request_that_cannot_be_is_refused(
    request_: dict[str, str], message: str, tiny_checkpoint: Path
) -> None:
    with pytest.raises(InputError, match=message):
        sampler(str(tiny_checkpoint), 1, request_)


def test_new_noise_in_every_step_is_refused_with_what_can_tell(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "stochastic"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "stochastic": True}))
    with pytest.raises(
        InputError, match=r"draws new noise in every step.*`molgen evaluate` says of its structures"
    ):
        sampler(str(folder), 1, {})
    assert latents(str(folder), 1, {})[1].default.num_steps == 4
