"""One forward of the denoiser, and what the sampling loop adds to its forwards. One thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from polydit.bench.adit_s import AditS, Size, adit_s, in_precision
from polydit.bench.measure import interleave, paired_ratio, threads
from polydit.bench.rows import Row
from polydit.molgen.batch import MOLECULE
from polydit.molgen.model import LatentDiT
from polydit.molgen.pipeline import MolgenPipeline, SampleRequest

STRUCTURES, ATOMS = 16, 29
GUIDANCE = 2.0


@torch.no_grad()
def forward_rows(*, quick: bool, size: Size | None = None) -> Iterator[Row]:
    """Our denoiser over the plain one: modulation inside or made before, float32 or bfloat16."""
    both, rounds = adit_s(size), 7 if quick else 25
    half = in_precision(both.pipeline, torch.bfloat16).denoiser
    contestants = {
        "plain": _plain_forward(both),
        "ours": _forward(both.pipeline.denoiser),
        "ours, modulation made before": _forward(both.pipeline.denoiser, modulated=True),
        "ours, bf16": _forward(half),
        "ours, bf16, modulation made before": _forward(half, modulated=True),
    }
    with threads(1):
        expected = contestants["plain"]()
        deviations = {name: _largest(run().float() - expected) for name, run in contestants.items()}
        timings = interleave(contestants, rounds=rounds)
    how = f"{STRUCTURES} × {ATOMS} atoms, same weights, one thread, CPU time, median of {rounds} interleaved rounds"
    for name in list(contestants)[1:]:
        ours, plain = timings[name], timings["plain"]
        yield Row(
            key="forward " + name,
            what=f"ADiT-S, one forward, {name}, over the plain transcription in fp32",
            value=paired_ratio(ours.cpu, plain.cpu),
            unit="×",
            asked=1.0 if name == "ours" else None,
            aim=0.8 if name == "ours" else None,
            how=f"{how}: {ours.median_cpu * 1e3:.0f} against {plain.median_cpu * 1e3:.0f} ms, "
            f"largest deviation {deviations[name]:.0e}",
            details={"ours": ours.cpu, "plain": plain.cpu, "deviation": deviations[name]},
        )


def _largest(difference: Tensor) -> float:
    return difference.abs().max().item()


def _inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Latents, the last prediction, times, kinds and space groups of molecules without padding."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(STRUCTURES, ATOMS, 8, generator=generator)
    previous = torch.randn(STRUCTURES, ATOMS, 8, generator=generator)
    time = torch.rand(STRUCTURES, generator=generator)
    kind = torch.full((STRUCTURES,), MOLECULE)
    return x, previous, time, kind, torch.zeros_like(kind)


def _plain_forward(both: AditS) -> Callable[[], Tensor]:
    x, previous, time, kind, spacegroup = _inputs()
    mask = torch.ones(STRUCTURES, ATOMS, dtype=torch.bool)
    return partial(both.plain, x, time, kind, spacegroup, mask, previous)


def _forward(model: LatentDiT, *, modulated: bool = False) -> Callable[[], Tensor]:
    x, previous, time, kind, spacegroup = _inputs()
    x, previous = x.to(model.dtype), previous.to(model.dtype)
    if modulated:
        table = model.modulate(time, kind, spacegroup)
        return lambda: model(x, self_condition=previous, modulation=table)
    return lambda: model(x, time, kind, spacegroup, self_condition=previous)


@torch.no_grad()
def overhead_row(*, quick: bool, size: Size | None = None) -> Row:
    """The whole loop over as many bare forwards of the doubled batch."""
    pipeline, steps, rounds = adit_s(size).pipeline, 4 if quick else 20, 3 if quick else 5
    requests = [SampleRequest(id=str(i), kind="molecule", num_atoms=ATOMS, seed=i) for i in range(STRUCTURES)]
    mask = torch.ones(STRUCTURES, ATOMS, dtype=torch.bool)
    with threads(1):
        timings = interleave(
            {
                "loop": partial(pipeline.generate_latents, requests, mask, steps, GUIDANCE),
                "forwards": partial(_bare_forwards, pipeline, steps),
            },
            rounds=rounds,
        )
    return Row(
        key="loop overhead",
        what="ADiT-S, guided sampling loop over its bare forwards",
        value=paired_ratio(timings["loop"].cpu, timings["forwards"].cpu),
        unit="×",
        asked=1.05,
        how=f"{STRUCTURES} × {ATOMS} atoms, {steps} guided steps, fp32, one thread, CPU time, median of "
        f"{rounds} interleaved rounds; a bare forward is one call of the doubled batch, modulation given",
        details={name: timing.cpu for name, timing in timings.items()},
    )


def _bare_forwards(pipeline: MolgenPipeline, steps: int) -> None:
    x, previous, time, kind, spacegroup = (torch.cat([value, value]) for value in _inputs())
    table = pipeline.denoiser.modulate(time[:1], kind[:1], spacegroup[:1]).rows(torch.zeros_like(kind))
    for _ in range(steps):
        pipeline.denoiser(x, self_condition=previous, modulation=table)
