"""The 128 slots that state and action of every robot share, by name.

Source: Liu et al., "RDT-1B: a Diffusion Foundation Model for Bimanual Manipulation", 2024, appendix on the physically
interpretable unified action space. SI units; a gripper is 0 when closed and 1 when open; angles are 6D rotations. The
arm of a robot that has one uses the right arm's slots, and names without a side mean the right side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from jaxtyping import Int

from polydit.core.cli.config import unknown_key

SIZE = 128
_SIDES = {"right_": 0, "left_": 50}  # side: its first slot
_ARM: tuple[tuple[int, str, Sequence[object]], ...] = (  # first slot in the side, name, what stands for {}
    (0, "arm_joint_{}_pos", range(10)),
    (10, "gripper_joint_{}_pos", range(5)),
    (10, "gripper_open", [""]),
    (15, "arm_joint_{}_vel", range(10)),
    (25, "gripper_joint_{}_vel", range(5)),
    (25, "gripper_open_vel", [""]),
    (30, "eef_pos_{}", "xyz"),
    (33, "eef_angle_{}", range(6)),
    (39, "eef_vel_{}", "xyz"),
    (42, "eef_angular_vel_{}", ("roll", "pitch", "yaw")),
)
_BASE = {"base_vel_x": 100, "base_vel_y": 101, "base_angular_vel": 102}


def _arm(prefix: str, start: int) -> dict[str, int]:
    return {
        prefix + pattern.format(part): start + first + offset
        for first, pattern, parts in _ARM
        for offset, part in enumerate(parts)
    }


def _named() -> dict[str, int]:
    slots = {name: slot for side, start in _SIDES.items() for name, slot in _arm(side, start).items()}
    return slots | _arm("", _SIDES["right_"]) | _BASE


SLOTS: Mapping[str, int] = MappingProxyType(_named())  # the published names: 144 of them for 93 slots

# The published models leave these empty. A mapping of ours may use them for what has no slot, such as objects in a
# simulator; weights that were trained elsewhere have never seen them filled.
RESERVED: Mapping[str, int] = MappingProxyType(
    {f"reserved_{slot}": slot for slot in range(SIZE) if slot not in SLOTS.values()}
)


def slot_indices(names: Sequence[str], *, where: str = "slot") -> Int[np.ndarray, " n"]:
    """The slots of names.

    Args:
        names: Names of `SLOTS` or `RESERVED`.
        where: Named in the message of an error.

    Raises:
        InputError: A name is unknown; the nearest one is named.
    """
    known = {**SLOTS, **RESERVED}
    for name in names:
        if name not in known:
            raise unknown_key(name, list(known), where=where, kind="slot")
    return np.array([known[name] for name in names], dtype=np.int64)


def slot_names() -> tuple[str, ...]:
    """One name for each of the 128 slots, in order; of several the one with a side, and with the joint's number."""
    names = {slot: name for name, slot in RESERVED.items()}
    for name, slot in SLOTS.items():  # the sides come first, and in a side joints before their other name
        names.setdefault(slot, name)
    return tuple(names[slot] for slot in range(SIZE))
