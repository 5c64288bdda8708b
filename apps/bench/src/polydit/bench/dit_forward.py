"""DiT-S/2: one forward of ours, diffusers' and the plain transcription's; what our sampling loop adds. One thread."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polydit.bench.dit_s import CHANNELS, CLASSES, PATCH, DiTs, Size, dit_s
from polydit.bench.measure import Timings, interleave, paired_ratio, threads
from polydit.bench.plain_dit import GUIDED_CHANNELS, sample_flow
from polydit.bench.rows import Row
from polydit.core.models.dit import DiT
from polydit.core.nn.modulation import ModulationTable
from polydit.core.nn.packed import pack_linears
from polydit.core.sampling import denoise, guided_model
from polydit.core.sampling.modulation import ModulationSchedule
from polydit.core.sampling.solvers import EulerScheduler

GUIDANCE = 4.0
TABLED = "ours, modulation made before, weights packed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one forward computes, and what is asked of ours over the plain transcription in fp32.

    Args:
        side: Tokens per side of the square.
        batch: Items.
        compiled: Ours in bf16 with compiled blocks, the others as they are.
        asked: Ratio of times.
        aim: Ratio of times.
    """

    side: int
    batch: int
    compiled: bool = False
    asked: float
    aim: float

    def __str__(self) -> str:
        return f"{self.side**2} tokens " + ("bf16 compiled" if self.compiled else "fp32")

    def inputs(self) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"], Int[Tensor, " b"]]:
        """Latents, times, labels."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.batch, CHANNELS, self.side * PATCH, self.side * PATCH, generator=generator)
        time = 999 * torch.rand(self.batch, generator=generator)
        return x, time, torch.randint(CLASSES, (self.batch,), generator=generator)


WORK = (
    Work(side=16, batch=4, asked=0.95, aim=0.90),
    Work(side=4, batch=1, asked=0.70, aim=0.60),
    Work(side=16, batch=4, compiled=True, asked=0.24, aim=0.20),
)


@torch.no_grad()
def forward_rows(*, quick: bool, size: Size | None = None, work: Sequence[Work] = WORK) -> Iterator[Row]:
    """Ours and diffusers' over the plain transcription: few tokens, many, and all that a processor with bf16 gives."""
    for each in work:
        rounds = (7 if quick else 25) * (4 if each.side < 8 else 1)  # short runs are less steady
        contestants = _contestants(dit_s(each.side, size), each)
        with threads(1):
            expected = contestants["plain"]()
            deviations = {name: _relative(run() - expected, expected) for name, run in contestants.items()}
            timings = interleave(contestants, rounds=rounds)
        for name in contestants:
            if name != "plain":
                yield _forward_row(name, each, timings, deviations[name])


def _forward_row(name: str, work: Work, timings: Mapping[str, Timings], deviation: float) -> Row:
    ours, plain = timings[name], timings["plain"]
    judged = name.startswith(TABLED)
    return Row(
        key=f"forward {work} {name}",
        what=f"DiT-S/2, {work.side**2} tokens, one forward, {name}, over the plain transcription in fp32",
        value=paired_ratio(ours.cpu, plain.cpu),
        unit="×",
        asked=work.asked if judged else None,
        aim=work.aim if judged else None,
        how=f"batch {work.batch}, same weights, one thread, CPU time, median of {len(ours.cpu)} interleaved rounds: "
        f"{ours.median_cpu * 1e3:.1f} against {plain.median_cpu * 1e3:.1f} ms, relative deviation {deviation:.0e}"
        + ("; a sampling run makes the modulation of all its steps at once, see the sampling row" * judged),
        details={"ours": ours.cpu, "plain": plain.cpu, "deviation": deviation},
    )


def _contestants(three: DiTs, work: Work) -> dict[str, Callable[[], Tensor]]:
    x, time, label = work.inputs()
    plain = partial(three.plain, x, time, label)
    if work.compiled:
        half = copy.deepcopy(three.ours).to(dtype=torch.bfloat16)
        pack_linears(half, rows=work.batch * work.side**2)
        eager = _forward(half, x.bfloat16(), half.modulate(time, label))
        compiled = copy.deepcopy(half)
        pack_linears(compiled, rows=work.batch * work.side**2)
        compiled.compile_repeated_blocks(fullgraph=True)
        return {
            "plain": plain,
            "ours in bf16, modulation made before, weights packed": eager,
            f"{TABLED}, bf16, compiled": _forward(compiled, x.bfloat16(), half.modulate(time, label)),
        }
    packed = copy.deepcopy(three.ours)
    pack_linears(packed, rows=work.batch * work.side**2)
    return {
        "plain": plain,
        "diffusers": lambda: three.diffusers(x, time, class_labels=label).sample,
        "ours": lambda: three.ours(x, time, label).sample,
        TABLED: _forward(packed, x, packed.modulate(time, label)),
    }


def _forward(model: DiT, x: Tensor, modulation: ModulationTable) -> Callable[[], Tensor]:
    return lambda: model(x, modulation=modulation).sample.float()


def _relative(difference: Tensor, expected: Tensor) -> float:
    return (difference.norm() / expected.norm()).item()


@torch.no_grad()
def overhead_rows(*, quick: bool, size: Size | None = None, side: int = 16) -> Iterator[Row]:
    """A guided run over its bare forwards, and over the plain transcription's run; the table is made within ours."""
    steps, rounds = (4, 5) if quick else (20, 9)
    three = dit_s(side, size)
    work = Work(side=side, batch=2, asked=1.0, aim=1.0)
    noise, _, label = work.inputs()
    with threads(1):
        ours = partial(sample, three.ours, noise, label, num_steps=steps)
        plain = partial(sample_flow, three.plain, noise, label, num_steps=steps, guidance_scale=GUIDANCE)
        expected = plain()
        deviation = _relative(ours() - expected, expected)
        timings = interleave(
            {
                "loop": ours,
                "forwards": partial(_bare_forwards, three.ours, noise, label, steps),
                "plain": plain,
            },
            rounds=rounds,
            warm_up=0,
        )
    how = (
        f"{side**2} tokens, {work.batch} items guided as {2 * work.batch}, {steps} Euler steps, fp32, one thread, CPU "
        f"time, median of {rounds} interleaved rounds"
    )
    loop, forwards, theirs = (timings[name] for name in ("loop", "forwards", "plain"))
    yield Row(
        key="dit loop overhead",
        what="DiT-S/2, guided sampling loop with the making of its modulation over its bare forwards",
        value=paired_ratio(loop.cpu, forwards.cpu),
        unit="×",
        asked=1.03,
        aim=1.01,
        how=f"{how}; a bare forward is one call of the doubled batch, modulation given",
        details={"loop": loop.cpu, "forwards": forwards.cpu},
    )
    yield Row(
        key="dit sampling",
        what="DiT-S/2, guided sampling run over that of the plain transcription",
        value=paired_ratio(loop.cpu, theirs.cpu),
        unit="×",
        how=f"{how}: {loop.median_cpu:.2f} against {theirs.median_cpu:.2f} s; ours makes the modulation of all steps "
        f"and both conditions at once, the plain one in every block of every call; relative deviation {deviation:.0e}",
        details={"ours": loop.cpu, "plain": theirs.cpu},
    )


def sample(
    model: DiT, noise: Float[Tensor, "b c h w"], label: Int[Tensor, " b"], *, num_steps: int
) -> Float[Tensor, "b c h w"]:
    """A guided run of our loop; the modulation of every step, for each label and for none, is made before it."""
    scheduler = EulerScheduler()
    scheduler.set_timesteps(num_steps)
    labels = torch.cat([label, torch.full_like(label, CLASSES)])
    rows = torch.arange(len(labels))
    tables = iter(ModulationSchedule(model.modulate, scheduler.timesteps, [labels], rows))

    def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        modulation = next(tables)

        def network(doubled: Tensor) -> Tensor:
            return model(doubled, modulation=modulation).sample[:, :CHANNELS]

        return guided_model(network, x, GUIDANCE, GUIDED_CHANNELS)

    return denoise(predict, noise, scheduler)


def _bare_forwards(model: DiT, noise: Tensor, label: Tensor, steps: int) -> None:
    labels = torch.cat([label, torch.full_like(label, CLASSES)])
    modulation = model.modulate(torch.full((len(labels),), 500.0), labels)
    doubled = torch.cat([noise, noise])
    for _ in range(steps):
        model(doubled, modulation=modulation)
