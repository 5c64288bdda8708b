"""RobotPolicy: chunks, seeds, ranges, what is no observation, and its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from polydit.core.errors import CheckpointError, InputError, PolyditError
from polydit.robopolicy import load
from polydit.robopolicy.envs.protocol import Observation
from polydit.robopolicy.language import Instructions
from polydit.robopolicy.models import Sizes, action_model, build_network, network_class
from polydit.robopolicy.normalize import Normalizer
from polydit.robopolicy.pictures import to_squares
from polydit.robopolicy.policy import RobotPolicy
from polydit.robopolicy.recipe import NetworkSize, RDTSettings, Recipe

Make = Callable[..., RobotPolicy]


def test_a_chunk_is_in_the_units_and_the_range_of_the_data(
    tiny_policy: RobotPolicy, observation: Observation
) -> None:
    tiny_policy.reset(seed=1)
    chunk = tiny_policy.predict_action_chunk(observation)
    scale = tiny_policy.normalizer.action
    assert chunk.shape == (tiny_policy.model.horizon, scale.size) and chunk.dtype == np.float32
    assert (chunk >= scale.low.astype(np.float32)).all() and (chunk <= scale.high.astype(np.float32)).all()
    raw = tiny_policy.model.sample(
        tiny_policy.collate([observation]), tiny_policy.draw(torch.Generator().manual_seed(1))[None]
    )
    np.testing.assert_allclose(chunk, scale.clip(scale.denormalize(raw[0].numpy())), atol=1e-6)


def test_select_action_plans_anew_after_as_many_actions_as_are_executed(
    tiny_policy: RobotPolicy, observation: Observation
) -> None:
    tiny_policy.reset(seed=3)
    chunks = [tiny_policy.predict_action_chunk(observation) for _ in range(2)]
    assert not np.allclose(chunks[0], chunks[1])  # new noise for each plan
    tiny_policy.reset(seed=3)
    execute = tiny_policy.config.execute
    actions = [tiny_policy.select_action(observation) for _ in range(2 * execute)]
    np.testing.assert_array_equal(actions, np.concatenate([chunk[:execute] for chunk in chunks]))


def test_reset_repeats_an_episode_and_forgets_the_plan(
    tiny_policy: RobotPolicy, observation: Observation
) -> None:
    tiny_policy.reset(seed=5)
    first = [tiny_policy.select_action(observation) for _ in range(3)]
    torch.randn(7)  # the policy's noise is its own
    tiny_policy.reset(seed=5)
    np.testing.assert_array_equal([tiny_policy.select_action(observation) for _ in range(3)], first)
    tiny_policy.reset(seed=6)
    assert not np.allclose(tiny_policy.select_action(observation), first[0])


def test_planning_together_is_planning_alone(tiny_policy: RobotPolicy, observation: Observation) -> None:
    other = {
        **observation,
        "observation.state": np.ones(5, np.float32),
        "task": tiny_policy.instructions.texts[1],
    }
    noise = torch.stack([tiny_policy.draw(torch.Generator().manual_seed(k)) for k in range(2)])
    both = tiny_policy.plan([observation, other], noise)
    for row, one in enumerate([observation, other]):
        np.testing.assert_allclose(both[row], tiny_policy.plan([one], noise[row : row + 1])[0], atol=1e-5)


def test_a_plan_that_is_not_finite_never_comes_out(new_tiny_policy: Make, observation: Observation) -> None:
    policy = new_tiny_policy()
    with torch.no_grad():
        next(policy.network.parameters()).fill_(torch.nan)
    for act in (policy.predict_action_chunk, policy.select_action):
        with pytest.raises(PolyditError, match="no finite number"):
            act(observation)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation.state": None}, r"lacks observation.state; it has .*task.*array \(5\)"),
        (
            {"observation.state": np.zeros(4, np.float32)},
            r"observation.state: has the shape \(4\); expected \(5\)",
        ),
        (
            {"observation.state": np.full(5, np.nan, np.float32)},
            "observation.state: holds a value that is no finite",
        ),
        ({"task": "dance"}, r"task: unknown instruction 'dance'.*'open the drawer', 'push the button'"),
        ({"task": None}, "lacks task"),
    ],
)
def test_what_is_no_observation_is_refused_by_name(
    tiny_policy: RobotPolicy, observation: Observation, change: dict[str, object], message: str
) -> None:
    wrong = {key: value for key, value in {**observation, **change}.items() if value is not None}
    tiny_policy.reset()
    with pytest.raises(InputError, match=message):
        tiny_policy.select_action(wrong)


def test_a_policy_of_one_task_needs_no_instruction(new_tiny_policy: Make, observation: Observation) -> None:
    policy = new_tiny_policy(tasks=("open the drawer",))
    state = {"observation.state": observation["observation.state"]}
    np.testing.assert_array_equal(policy.predict_action_chunk(state).shape, (6, 3))
    with pytest.raises(InputError, match="unknown instruction"):
        policy.predict_action_chunk({**state, "task": "push the button"})


def test_pictures_are_checked_and_scaled(new_tiny_policy: Make, observation: Observation) -> None:
    policy = new_tiny_policy(cameras=("top",))
    key = "observation.images.top"
    picture = np.zeros((48, 64, 3), np.uint8)
    assert policy.predict_action_chunk({**observation, key: picture}).shape == (6, 3)
    batch = policy.collate([{**observation, key: picture}])
    assert batch.images is not None and batch.images.shape == (1, 1, 3, 32, 32)
    with pytest.raises(InputError, match=r"lacks observation.images.top"):
        policy.predict_action_chunk(observation)
    with pytest.raises(
        InputError, match=r"images.top: has the shape \(3, 48, 64\); expected \(any, any, 3\)"
    ):
        policy.predict_action_chunk({**observation, key: picture.transpose(2, 0, 1)})
    with pytest.raises(InputError, match=r"images.top: is float64; expected uint8"):
        policy.predict_action_chunk({**observation, key: picture / 255.0})


def test_pictures_become_squares_with_grey_borders() -> None:
    wide = np.full((1, 2, 4, 3), 255, np.uint8)
    found = to_squares(wide, 4)
    assert found.shape == (1, 3, 4, 4)
    assert torch.equal(found[0, 0, :, 0], torch.tensor([127 / 255, 1.0, 1.0, 127 / 255]))
    noise = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    same = to_squares(noise, 8)
    assert torch.equal((same * 255).round().byte(), torch.from_numpy(noise).permute(0, 3, 1, 2))
    torch.testing.assert_close(to_squares(noise, 4).mean((2, 3)), same.mean((2, 3)), atol=0.05, rtol=0.0)


def franka(arm: str) -> RobotPolicy:
    """A policy in the unified layout, for 7 joints and a gripper."""
    torch.manual_seed(0)
    recipe = Recipe(
        model="rdt", network=NetworkSize(width=32, depth=1, heads=2), rdt=RDTSettings(arm="franka"), horizon=3
    )
    network = build_network(recipe, Sizes(state=8, action=8, language=4, language_tokens=1))
    with torch.no_grad():
        network.head.mlp.fc2.weight.normal_(std=0.5)
    bounds = np.array([2.0] * 7 + [0.08])
    row = {"mean": bounds * 0, "std": bounds, "min": -bounds, "max": bounds, "q01": -bounds, "q99": bounds}
    rows = {"observation.state": row, "action": row}
    normalizer = Normalizer.of(rows, state="identity", action="identity")
    return RobotPolicy(network.eval(), normalizer, Instructions.vectors(["lift"], 4), model="rdt", arm=arm)


def test_the_unified_layout_puts_an_arm_into_its_slots_and_back(tmp_path: Path) -> None:
    policy = franka("franka")
    state = np.linspace(0.0, 0.08, 8, dtype=np.float32)
    batch = policy.collate([{"observation.state": state}])
    assert batch.state.shape == (1, 128)
    np.testing.assert_allclose(batch.state[0, :7], state[:7])
    assert batch.state[0, 10] == 1.0 and batch.state[0].count_nonzero() == 7  # gripper open; joint 0 is at 0
    assert policy.config.model_settings["slots"] == [*range(7), 10]
    noise = policy.draw(torch.Generator().manual_seed(0))[None]
    assert noise.shape == (1, 3, 128)
    planned = policy.model.sample(batch, noise)[0]
    chunk = policy.plan([{"observation.state": state}], noise)[0]
    assert chunk.shape == (3, 8) and np.abs(chunk).max() > 0
    np.testing.assert_allclose(chunk[:, :7], planned[:, :7].clip(-2.0, 2.0), atol=1e-6)
    np.testing.assert_allclose(chunk[:, 7], (planned[:, 10] * 0.08).clip(-0.08, 0.08), atol=1e-6)
    own = tmp_path / "mine.toml"
    own.write_text((files("polydit.robopolicy.spaces") / "arms" / "franka.toml").read_text())
    franka(str(own)).save_pretrained(tmp_path / "policy")
    own.unlink()  # the policy brings its own copy
    found = RobotPolicy.from_pretrained(tmp_path / "policy")
    np.testing.assert_allclose(found.plan([{"observation.state": state}], noise)[0], chunk, atol=1e-6)
    with pytest.raises(InputError, match=r"observation.state has 8 numbers.*14|arm aloha"):
        franka("aloha")


# ---------------------------------------------------------------------------------------------------------
# Files


def test_a_saved_policy_acts_as_before(
    tiny_policy: RobotPolicy, tiny_folder: Path, observation: Observation
) -> None:
    found = load(str(tiny_folder))
    for policy in (tiny_policy, found):
        policy.reset(seed=2)
    np.testing.assert_array_equal(
        found.predict_action_chunk(observation), tiny_policy.predict_action_chunk(observation)
    )
    assert dict(found.config)["robot_type"] == "test arm" and found.config.fps == 20.0
    assert set(found.components) == {"network"}


def test_a_folder_that_is_damaged_or_of_another_kind_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(tiny_folder, tmp_path / name))

    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        RobotPolicy.from_pretrained(tmp_path)
    folder = copy("no-normalizer")
    (folder / "normalizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match="normalisation"):
        RobotPolicy.from_pretrained(folder)
    folder = copy("no-network")
    shutil.rmtree(folder / "network")
    with pytest.raises(CheckpointError, match="lacks its part 'network'"):
        RobotPolicy.from_pretrained(folder)
    for change, message in (
        ({"model": "os"}, "expected rdt or mode or pad"),
        ({"execute": 9}, "execute is 9; expected 1 to 6"),
        ({"colour": "red"}, "settings do not fit"),
        ({"model_settings": {"steps": 1}}, "settings do not fit"),
        ({"arm": "/etc/other.toml"}, "there is no arm"),
    ):
        folder = copy(str(change))
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, **change}))
        with pytest.raises(InputError, match=message):
            RobotPolicy.from_pretrained(folder)


@pytest.mark.parametrize("model", ["rdt", "mode", "pad"])
def test_every_system_is_built_for_a_robot(model: str) -> None:
    recipe = Recipe(
        model=model,  # type: ignore[arg-type]
        network=NetworkSize(width=32, depth=1, heads=2),
        cameras=("top",) if model == "pad" else (),
        image_size=16,
    )
    found = action_model(
        model, build_network(recipe, Sizes(state=5, action=3, language=8, language_tokens=2))
    )
    assert (found.horizon, found.action_dim) == (recipe.horizon, 3)


def test_a_network_that_cannot_be_is_an_input_error() -> None:
    recipe = Recipe(model="mode", network=NetworkSize(width=32, depth=1, heads=2))
    with pytest.raises(InputError, match="mode network"):
        build_network(recipe, Sizes(state=0, action=3, language=8, language_tokens=1))
    with pytest.raises(InputError, match="unknown model 'gpt'"):
        network_class("gpt")
