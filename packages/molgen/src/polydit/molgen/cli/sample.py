"""`molgen sample`: molecules or crystals into a run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from polydit.core.cli.options import (
    CommaList,
    checkpoint_option,
    guidance_scale_option,
    num_samples_option,
    num_steps_option,
    report_option,
    run_options,
    seed_option,
)
from polydit.core.cli.output import Output
from polydit.core.cli.sampling import Estimate, OnStep, SamplingCall, SamplingJob, Work, cache_option
from polydit.core.errors import InputError
from polydit.core.jobs import RunFolder
from polydit.molgen.checkpoint import Checkpoint
from polydit.molgen.formulas import parse_formula
from polydit.molgen.sampling_joined import joined_name, write_joined
from polydit.molgen.sampling_plan import (
    BatchLimit,
    PlannedSample,
    SamplingPlan,
    SizeDistribution,
    padded_tokens,
)

if TYPE_CHECKING:
    from polydit.core.jobs.device import Device
    from polydit.molgen.data.writers import Format
    from polydit.molgen.pipeline import MolgenPipeline
    from polydit.molgen.sampling_cost import SamplingCost

# XYZ has no place for a cell, SDF neither, and CIF needs one. The first is the default.
FORMATS: Mapping[str, tuple[Format, ...]] = {
    "molecule": ("sdf", "xyz", "extxyz"),
    "crystal": ("cif", "extxyz"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call(SamplingCall):
    kind: Literal["molecule", "crystal"]
    num_samples: int
    atoms: str
    formula: str
    spacegroup: int | None


@dataclass(frozen=True, kw_only=True)
class _Job(SamplingJob[PlannedSample]):
    command = "molgen sample"

    call: _Call
    plan: SamplingPlan

    @property
    def noun(self) -> str:
        return f"{self.call.kind}s"

    def batches(self, device: Device) -> Iterator[Sequence[PlannedSample]]:
        return self.plan.batches(self._batch_limit(device))

    def weight(self, batch: Sequence[PlannedSample]) -> int:
        return padded_tokens(batch)

    def load(self, device: Device, on_step: OnStep) -> Work[PlannedSample]:
        from polydit.core.sampling.cache.named import cache_for
        from polydit.molgen.sampling_run import Sampler

        pipeline = _load(self, device)
        return Sampler(
            pipeline=pipeline,
            kind=self.call.kind,
            formats=self.formats,
            num_steps=self.num_steps,
            guidance_scale=self.guidance_scale,
            cache=cache_for(pipeline.denoiser, self.cache, self.num_steps),
            on_cache=self.caches.add,
            spacegroup=self.call.spacegroup or 0,
            model=self.model,
            on_step=on_step,
        )

    def joined_names(self) -> list[str]:
        return [joined_name(self.call.kind, name) for name in self.formats]

    def write_joined(self, folder: RunFolder) -> list[str]:
        return write_joined(folder, self.call.kind, self.formats)

    def write_report(self) -> None:
        from polydit.molgen.report import write_report

        write_report(self.call.out)

    def estimate(self, missing: int, device: Device) -> Estimate:
        cost, tokens = self._cost(), self._tokens_per_batch(device)
        seconds = cost.seconds(missing, self.plan.sizes.mean, device)
        return Estimate(cost.parameters, seconds, cost.memory_bytes(tokens), f"{tokens} atoms")

    def facts(self, device: Device) -> tuple[dict[str, Any], str]:
        sizes = self.plan.sizes
        smallest, largest = sizes.sizes[0], sizes.sizes[-1]
        record = {
            "kind": self.call.kind,
            "atoms": [smallest, largest],
            "mean_atoms": sizes.mean,
            "tokens_per_batch": self._tokens_per_batch(device),
        }
        return record, f"of {smallest} to {largest} atoms, {sizes.mean:.1f} on average"

    def _cost(self) -> SamplingCost:
        from polydit.molgen.sampling_cost import SamplingCost

        scale = self.guidance_scale
        return SamplingCost.read(self.checkpoint.path, num_steps=self.num_steps, guidance_scale=scale)

    def _batch_limit(self, device: Device) -> BatchLimit:
        if self.call.batch_size == "auto":
            return BatchLimit(tokens=self._cost().tokens_per_batch(device))
        return BatchLimit(items=self.call.batch_size)

    def _tokens_per_batch(self, device: Device) -> int:
        largest = self.plan.sizes.sizes[-1]
        return self._batch_limit(device).most(largest) * largest


@click.command()
@click.option("--kind", type=click.Choice(list(FORMATS)), default="molecule", help="What to generate.")
@num_samples_option
@click.option(
    "--atoms", default="auto", metavar="auto|N|A-B",
    help="Atoms per structure, hydrogens included: as in the training data, a number, or a range.",
)  # fmt: skip
@click.option(
    "--formula", default="auto", metavar="auto|none|C4H8O2",
    help="Formula to ask for. auto: molecules as in the training data, crystals none.",
)  # fmt: skip
@click.option(
    "--spacegroup", type=click.IntRange(1, 230), default=None, show_default="any",
    help="Space group to ask for (crystals).",
)  # fmt: skip
@num_steps_option(type=click.IntRange(min=2))
@guidance_scale_option
@cache_option
@seed_option
@click.option(
    "--format", "formats", type=CommaList(["sdf", "xyz", "extxyz", "cif"]), default=None,
    show_default="sdf for molecules, cif for crystals", help="File formats, separated by commas.",
)  # fmt: skip
@checkpoint_option
@report_option
@run_options
@click.pass_context
def sample(ctx: click.Context, /, output: Output, **values: Any) -> None:
    """Generate molecules or crystals into a run folder.

    \b
    molgen sample --num-samples 100 --out run/
    molgen sample --kind crystal --atoms 5-20 --format cif,extxyz --out crystals/
    molgen sample --formula C4H8O2 --out isomers/
    molgen sample --num-samples 100000 --shard 0/4 --out run-0/

    Structures are written as they are made. The same command run again goes on where it stopped, and a larger
    --num-samples adds to a run: structure k is the same whatever the batch size, the shard and the number of
    samples.
    """
    _prepare(_Call(**values)).run(ctx, output)


def _prepare(call: _Call) -> _Job:
    """Everything that can be wrong with a call, found before a weight is loaded."""
    formats = call.formats or FORMATS[call.kind][:1]
    for name in formats:
        if name not in FORMATS[call.kind]:
            expected = ", ".join(FORMATS[call.kind])
            raise InputError(f"cannot hold a {call.kind}", where=f"--format {name}", expected=expected)
    if call.spacegroup is not None and call.kind == "molecule":
        raise InputError("molecules have no space group", where="--spacegroup", hint="Add --kind crystal.")
    checkpoint = Checkpoint.find(call.checkpoint)
    formulas = checkpoint.formulas(call.kind, call.formula)
    sizes = SizeDistribution.parse(_atoms(call), checkpoint.sizes(call.kind), kind=call.kind)
    plan = SamplingPlan(
        kind=call.kind,
        num_samples=call.num_samples,
        sizes=sizes,
        formulas=formulas,
        seed=call.seed,
        shard=call.shard,
        limit=call.limit,
    )
    call.check_device()
    return _Job(
        call=call,
        checkpoint=checkpoint,
        plan=plan,
        formats=formats,
        num_steps=checkpoint.num_steps if call.num_steps is None else call.num_steps,
        guidance_scale=checkpoint.guidance_scale if call.guidance_scale is None else call.guidance_scale,
    )


def _atoms(call: _Call) -> str:
    """What `--atoms` amounts to: a formula says the number itself."""
    if call.formula in ("auto", "none"):
        return call.atoms
    count = str(sum(parse_formula(call.formula).values()))
    if call.atoms not in ("auto", count):
        raise InputError(f"{call.formula} has {count} atoms", where=f"--atoms {call.atoms}")
    return count


def _load(job: _Job, device: Device) -> MolgenPipeline:
    from torch import nn

    from polydit.core.jobs.device import choose_dtype
    from polydit.molgen.pipeline import MolgenPipeline

    pipeline = MolgenPipeline.from_pretrained(job.checkpoint.path)
    # The decoder stays in float32: it runs once, and rounding there would move atoms. torch's own `to`, since
    # diffusers' warns that parts of a network may have to stay in float32, and this one has none.
    nn.Module.to(pipeline.denoiser, choose_dtype(job.call.dtype))
    return pipeline.to(device.name)
