"""A training step on the CPU: attention in fp32 inside bf16 autocast against bf16 throughout."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polydit.bench.measure import interleave, paired_ratio, threads
from polydit.bench.rows import Row
from polydit.core.nn.attention import SelfAttention, SelfAttentionProcessor
from polydit.core.nn.patterns import Pattern, padding_of
from polydit.molgen.batch import MOLECULE
from polydit.molgen.model import LatentDiT

ATOMS = 29
THREADS = 2


class PlainProcessor(SelfAttentionProcessor):
    """Attention as everybody writes it: whatever type autocast hands over goes into torch's dot product."""

    def __call__(self, attn: SelfAttention, hidden_states: Tensor, pattern: Pattern | None = None) -> Tensor:
        q, k, v = attn.qkv(hidden_states).unflatten(-1, (3, attn.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if pattern is None else pattern.mask()
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return attn.out(mixed.transpose(1, 2).flatten(2))


def training_row(*, quick: bool) -> Row:
    """Forward and backward of a small denoiser."""
    structures, rounds = (32, 3) if quick else (128, 7)
    ours, plain = contestants()
    with threads(THREADS):
        timings = interleave(
            {
                "plain": partial(forward_backward, plain, structures),
                "ours": partial(forward_backward, ours, structures),
            },
            rounds=rounds,
        )
    return Row(
        key="training step",
        what="training step in bf16 autocast: fp32 attention inside it over bf16 attention",
        value=paired_ratio(timings["ours"].wall, timings["plain"].wall),
        unit="×",
        asked=1.0,
        how=f"denoiser 192 wide, 6 blocks, {structures} × up to {ATOMS} atoms with padding, forward and "
        f"backward, {THREADS} threads, wall time, median of {rounds} interleaved rounds",
        details={"ours": timings["ours"].wall, "plain": timings["plain"].wall},
    )


def contestants() -> tuple[LatentDiT, LatentDiT]:
    """The same denoiser twice: with our attention, and with the plain one."""
    torch.manual_seed(0)
    ours, plain = (LatentDiT(width=192, depth=6, heads=6).train() for _ in range(2))
    for parameter in ours.parameters():  # a fresh one predicts zero and has hardly a gradient
        nn.init.normal_(parameter, std=0.03)
    plain.load_state_dict(ours.state_dict())
    for module in plain.modules():
        if isinstance(module, SelfAttention):
            module.processor = PlainProcessor()
    return ours, plain


def forward_backward(model: LatentDiT, structures: int) -> None:
    """One training step without the optimiser; gradients are made afresh."""
    model.zero_grad(set_to_none=True)
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(9, ATOMS + 1, (structures,), generator=generator)
    mask = padding_of(sizes, ATOMS)
    x = torch.randn(structures, ATOMS, 8, generator=generator)
    time = torch.rand(structures, generator=generator)
    kind = torch.full((structures,), MOLECULE)
    with torch.autocast("cpu", torch.bfloat16):
        predicted = model(x, time, kind, torch.zeros_like(kind), mask)
    (predicted.float() - x).square().mean().backward()
