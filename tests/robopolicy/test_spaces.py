"""The 128 slots, rotations against known ones, and mappings of arms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.robopolicy.spaces.arms import arm_names, load_arm
from polydit.robopolicy.spaces.rotations import (
    FORMS,
    euler_from_matrix,
    matrix_from_euler,
    matrix_from_quaternion,
    matrix_from_six,
    matrix_from_vector,
    quaternion_from_matrix,
    six_from_matrix,
    vector_from_matrix,
)
from polydit.robopolicy.spaces.unified import RESERVED, SIZE, SLOTS, slot_indices, slot_names

rng = np.random.default_rng(0)

# ---------------------------------------------------------------------------------------------------------
# Slots


def test_there_are_144_names_for_93_slots() -> None:
    assert len(SLOTS) == 144
    assert len(set(SLOTS.values())) == 93
    assert sorted([*set(SLOTS.values()), *RESERVED.values()]) == list(range(SIZE))


@pytest.mark.parametrize(
    ("name", "slot"),
    [
        ("right_arm_joint_0_pos", 0), ("arm_joint_9_pos", 9), ("gripper_open", 10), ("right_gripper_joint_4_pos", 14),
        ("right_arm_joint_9_vel", 24), ("gripper_open_vel", 25), ("right_eef_pos_x", 30), ("eef_pos_z", 32),
        ("right_eef_angle_0", 33), ("right_eef_angle_5", 38), ("right_eef_vel_x", 39),
        ("right_eef_angular_vel_yaw", 44), ("left_arm_joint_0_pos", 50), ("left_gripper_open", 60),
        ("left_arm_joint_0_vel", 65), ("left_gripper_open_vel", 75), ("left_eef_pos_x", 80), ("left_eef_angle_0", 83),
        ("left_eef_vel_x", 89), ("left_eef_angular_vel_roll", 92), ("base_vel_x", 100), ("base_angular_vel", 102),
    ],
)  # fmt: skip
def test_slots_are_those_of_the_table(name: str, slot: int) -> None:
    assert SLOTS[name] == slot


def test_names_go_to_slots_and_back() -> None:
    assert slot_indices(slot_names()).tolist() == list(range(SIZE))
    assert slot_names()[45] == "reserved_45"


def test_an_unknown_slot_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown slot 'right_eef_pos_w'.*right_eef_pos_"):
        slot_indices(["right_eef_pos_w"])


# ---------------------------------------------------------------------------------------------------------
# Rotations


def rotations(count: int = 200) -> np.ndarray:
    return matrix_from_quaternion(rng.normal(size=(count, 4)))


def test_known_rotations() -> None:
    quarter_about_z = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    half = np.sqrt(0.5)
    assert np.allclose(matrix_from_euler(np.array([0, 0, np.pi / 2])), quarter_about_z)
    assert np.allclose(matrix_from_quaternion(np.array([0, 0, half, half])), quarter_about_z)
    assert np.allclose(matrix_from_vector(np.array([0, 0, np.pi / 2])), quarter_about_z)
    assert np.allclose(six_from_matrix(quarter_about_z), [0, 1, 0, -1, 0, 0])
    assert np.allclose(matrix_from_six(np.array([0.0, 1, 0, -1, 0, 0])), quarter_about_z)


def test_euler_angles_are_about_fixed_axes() -> None:
    """Roll first, about the fixed x axis; then pitch about y; then yaw about z."""
    roll, pitch, yaw = 0.3, -0.5, 1.1
    one_by_one = (
        matrix_from_vector(np.array([0, 0, yaw]))
        @ matrix_from_vector(np.array([0, pitch, 0]))
        @ matrix_from_vector(np.array([roll, 0, 0]))
    )
    assert np.allclose(matrix_from_euler(np.array([roll, pitch, yaw])), one_by_one)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_goes_both_ways(form: str) -> None:
    matrices = rotations()
    numbers = FORMS[form].from_matrix(matrices)
    assert numbers.shape == (200, FORMS[form].size)
    assert np.allclose(FORMS[form].to_matrix(numbers), matrices, atol=1e-9)


def test_six_numbers_of_any_length_give_a_rotation() -> None:
    six = rng.normal(size=(50, 6)) * 3
    matrices = matrix_from_six(six)
    assert np.allclose(matrices @ np.swapaxes(matrices, -1, -2), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(matrices), 1)
    first = six[:, :3] / np.linalg.norm(six[:, :3], axis=1, keepdims=True)
    assert np.allclose(matrices[:, :, 0], first)


def test_special_rotations() -> None:
    for angle in (0.0, 1e-12, np.pi):
        vector = np.array([[0.0, angle, 0.0]])
        assert np.allclose(np.abs(vector_from_matrix(matrix_from_vector(vector))), vector, atol=1e-7)
    upright = matrix_from_euler(np.array([0.4, np.pi / 2, 0.7]))  # roll and yaw about the same axis
    assert np.allclose(matrix_from_euler(euler_from_matrix(upright)), upright, atol=1e-7)
    for axis in np.eye(3):  # half turns: each has another largest divisor
        turned = matrix_from_vector(axis * np.pi)
        assert np.allclose(matrix_from_quaternion(quaternion_from_matrix(turned)), turned, atol=1e-7)


def test_what_is_no_rotation_is_refused() -> None:
    with pytest.raises(InputError, match="parallel"):
        matrix_from_six(np.array([1.0, 0, 0, 2, 0, 0]))
    with pytest.raises(InputError, match="zero"):
        matrix_from_quaternion(np.zeros(4))


# ---------------------------------------------------------------------------------------------------------
# Arms


@pytest.mark.parametrize("name", arm_names())
def test_actions_of_every_arm_go_both_ways(name: str) -> None:
    arm = load_arm(name)
    actions = rng.uniform(-1, 1, size=(4, arm.sizes["action"])).astype(np.float32)
    unified = arm.to_unified(actions, "action")
    assert unified.shape == (4, SIZE)
    assert (unified[:, ~arm.masks["action"]] == 0).all()
    assert np.allclose(arm.from_unified(unified), actions, atol=1e-6)


def test_mobile_aloha_is_mapped_as_rdt_does() -> None:
    arm = load_arm("mobile-aloha")
    state = np.arange(1.0, 15.0)
    unified = arm.to_unified(state)
    assert np.allclose(unified[50:56], state[:6]) and np.allclose(unified[0:6], state[7:13])
    assert np.isclose(unified[60], 7 / 4.7908) and np.isclose(unified[10], 14 / 4.7888)
    assert arm.masks["state"].sum() == 14
    action = arm.from_unified(np.ones(SIZE, dtype=np.float32))
    assert np.isclose(action[6], 11.8997) and np.isclose(action[13], 13.9231)
    assert arm.control_frequency == 25


def test_calvins_orientation_becomes_six_numbers() -> None:
    arm = load_arm("calvin")
    state = np.zeros(15)
    state[3:6], state[6] = [0.1, 0.2, 0.3], 0.04
    unified = arm.to_unified(state)
    assert np.allclose(unified[33:39], six_from_matrix(matrix_from_euler(state[3:6])), atol=1e-6)
    assert np.isclose(unified[10], 0.5)
    assert np.allclose(arm.from_unified(unified, "state")[:7], state[:7], atol=1e-6)
    opened = arm.to_unified(np.array([0, 0, 0, 0, 0, 0, 1.0]), "action")
    assert opened[10] == 1


def test_metaworlds_gripper_closes_at_one() -> None:
    arm = load_arm("metaworld")
    closed, opened = arm.to_unified(np.array([[1.0, 0, 0, 1], [0, 0, 0, -1]]), "action")
    assert closed[10] == 0 and opened[10] == 1
    assert np.isclose(closed[39], 0.8)  # 0.01 m in a step of 1/80 s
    assert load_arm("metaworld-scene").masks["state"][103:120].all()


MINE = """
summary = "my arm"
control_frequency = 10
state_size = 5
action_size = 2
[[state]]
columns = [0, 1, 2, 3]
rotation = "quaternion-xyzw"
slots = [
    "right_eef_angle_0", "right_eef_angle_1", "right_eef_angle_2",
    "right_eef_angle_3", "right_eef_angle_4", "right_eef_angle_5",
]
[[action]]
columns = [1]
slots = ["gripper_open"]
scale = [2.0]
offset = 1
"""


def test_a_mapping_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    arm = load_arm(str(path))
    unified = arm.to_unified(np.array([0.0, 0, 0, 1, 99]))
    assert np.allclose(unified[33:39], [1, 0, 0, 0, 1, 0])
    assert arm.from_unified(arm.to_unified(np.array([7.0, 5.0]), "action")).tolist() == [0.0, 5.0]
    with pytest.raises(InputError, match="a state of 4 numbers; expected 5"):
        arm.to_unified(np.zeros(4))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"gripper_open"', '"gripper_opne"', "unknown slot 'gripper_opne'.*gripper_open"),
        ("columns = [1]", "columns = [2]", r"mine.toml action 1: columns is \[2\]"),
        ("columns = [1]", "columns = [1, 0]", "2 columns and 1 slots"),
        ("scale = [2.0]", "scale = 0", "no scale of 0"),
        ("scale = [2.0]", "scales = 2", "unknown key 'scales'"),
        ("[0, 1, 2, 3]", "[0, 1, 2]", "a rotation quaternion-xyzw has 4 columns"),
        ('"quaternion-xyzw"', '"quaternion"', "unknown rotation 'quaternion'"),
        ("action_size = 2", "action_size = 0", "action_size is 0"),
        ('slots = ["gripper_open"]', "", "slots is None"),
        ("[[action]]", "[[acton]]", "unknown key 'acton'"),
        ("summary", "= summary", "not a TOML file"),
        ('"right_eef_angle_1"', '"right_eef_angle_0"', "slot 33 is named twice"),
    ],
)
def test_a_wrong_mapping_is_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace(before, after, 1))
    with pytest.raises(InputError, match=message):
        load_arm(str(path))


def test_an_arm_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"no arm 'pr2'.*franka"):
        load_arm("pr2")
