"""DiT-3D: what real 3D windows save beside attention over all tokens, with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from polydit.bench.measure import interleave, paired_ratio, threads
from polydit.bench.rows import Row
from polydit.pointgen.model import PointDiT

POINTS = 2048


@dataclass(frozen=True, slots=True)
class Size:
    """DiT-3D-S at 64³ cells and patches of 4: 16³ tokens, windows of 4³."""

    voxels: int = 64
    patch_size: int = 4
    width: int = 384
    depth: int = 12
    heads: int = 6
    window: int = 4

    @property
    def tokens(self) -> int:
        """Tokens of a cloud."""
        return (self.voxels // self.patch_size) ** 3

    def network(self, window_blocks: tuple[int, ...]) -> PointDiT:
        """Random weights, the same whatever the windows are."""
        torch.manual_seed(0)
        network = PointDiT(
            voxels=self.voxels,
            patch_size=self.patch_size,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            window=self.window if window_blocks else 0,
            window_blocks=window_blocks,
        )
        return network.eval()

    def operations(self, windowed: int) -> float:
        """Multiplications of a forward pass: 12 d² per token in the matrices of a block, 2 d per token that it sees."""
        n, d = self.tokens, self.width
        seen = windowed * self.window**3 + (self.depth - windowed) * n
        return n * d * (12 * d * self.depth + 2 * seen)

    def pairs(self, windowed: int) -> int:
        """Pairs of tokens that attention weighs in all blocks: what its memory goes by where it is written out."""
        n = self.tokens
        return n * (windowed * self.window**3 + (self.depth - windowed) * n)


def window_rows(*, quick: bool, size: Size | None = None) -> Iterator[Row]:
    """Windows in every third block, as published was meant; in two of three (ViTDet's share); in all."""
    size = size or (Size(voxels=32, patch_size=2, depth=3) if quick else Size())
    blocks = range(size.depth)
    chosen = {
        "every third": tuple(b for b in blocks if b % 3 == 0),
        "two of three": tuple(b for b in blocks if b % 3 != 2),
        "all": tuple(blocks),
    }
    networks = {"none": size.network(())} | {name: size.network(those) for name, those in chosen.items()}
    points = torch.randn(1, POINTS, 3, generator=torch.Generator().manual_seed(1))
    t, label = torch.zeros(1), torch.zeros(1, dtype=torch.long)
    rounds = 3 if quick else 7
    with threads(1), torch.inference_mode():
        timings = interleave(
            {k: partial(net.forward, points, t, label) for k, net in networks.items()}, rounds=rounds
        )
    plain = timings["none"]
    for name, those in chosen.items():
        ours, asked = timings[name], 0.6 if name == "two of three" else None
        memory = size.pairs(len(those)) / size.pairs(0)
        yield Row(
            key=f"windows in {name}",
            what=f"DiT-3D, a forward pass with windows ({name} of the blocks) over attention to all tokens",
            value=paired_ratio(ours.cpu, plain.cpu),
            unit="×",
            asked=asked,
            aim=size.operations(len(those)) / size.operations(0) if asked else None,
            how=f"{size.voxels}³ cells, patches of {size.patch_size}, {size.tokens} tokens, {size.width} wide, "
            f"{size.depth} blocks, windows of {size.window}³, fp32, one cloud, one thread, CPU time, median of "
            f"{rounds} interleaved rounds: {ours.median_cpu:.2f} against {plain.median_cpu:.2f} s; the count of "
            f"operations says {size.operations(len(those)) / size.operations(0):.2f}, pairs that attention weighs "
            f"{memory:.3f}",
            details={"ours": ours.cpu, "plain": plain.cpu, "pairs": memory},
        )
