"""One seed per item: the same noise on every machine, in every batch, in every shard and after a resume."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def item_seed(seed: int, item_id: str, k: int | None = None) -> int:
    """Seed of one item: the first 8 bytes of sha256("seed:id[:k]"), halved.

    Args:
        seed: Base seed of the run, any integer.
        item_id: The item's name in the run; equal names give equal seeds.
        k: Number of the sample where one item gives several.

    Returns:
        An integer in [0, 2**63), which every generator we use takes.
    """
    text = f"{seed}:{item_id}" if k is None else f"{seed}:{item_id}:{k}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def item_uniform(seed: int, item_id: str) -> float:
    """A number in [0, 1) that depends on `seed` and `item_id` only, for choices made without torch."""
    # 53 bits: a quotient of all 63 could round up to 1.0.
    return (item_seed(seed, item_id) >> 10) / 2**53


def item_generator(seed: int, item_id: str, k: int | None = None) -> torch.Generator:
    """A CPU generator seeded by `item_seed`; draw in float32 with it, then move and cast.

    Generators of other devices give other numbers for the same seed, so noise is never drawn there.
    """
    import torch

    return torch.Generator("cpu").manual_seed(item_seed(seed, item_id, k))
