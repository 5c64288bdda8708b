"""Seeds of items: fixed by seed and name alone."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import torch

from polydit.core.jobs import item_generator, item_seed, item_uniform


def test_the_rule_is_the_documented_one() -> None:
    digest = hashlib.sha256(b"7:mol-000017").digest()
    assert item_seed(7, "mol-000017") == int.from_bytes(digest[:8], "big") >> 1
    assert item_seed(7, "mol-000017", 2) == item_seed(7, "mol-000017:2")


def test_these_numbers_never_change() -> None:
    assert item_seed(0, "mol-000000") == 5631969067950734451
    assert item_seed(0, "mol-000000", 0) == 1236145812645461146


def test_every_part_counts() -> None:
    seeds = {item_seed(s, i, k) for s in (0, 1) for i in ("a", "b") for k in (None, 0, 1)}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_repeat_and_differ() -> None:
    def draw(name: str) -> torch.Tensor:
        return torch.randn(8, generator=item_generator(0, name))

    assert torch.equal(draw("a"), draw("a"))
    assert not torch.equal(draw("a"), draw("b"))


def test_uniform_numbers_fill_the_unit_interval() -> None:
    numbers = sorted(item_uniform(0, f"item-{i}") for i in range(4000))
    assert numbers[0] >= 0 and numbers[-1] < 1
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed once in a thousand; the numbers here are fixed.
    assert max(abs(x - i / 4000) for i, x in enumerate(numbers)) < 1.95 / 4000**0.5


def test_jobs_load_without_torch() -> None:
    code = "import sys, polydit.core.jobs; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
