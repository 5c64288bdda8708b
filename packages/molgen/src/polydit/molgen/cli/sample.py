"""`molgen sample`: molecules or crystals into a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from polydit.core.cli.config import Option, effective_options
from polydit.core.cli.options import (
    MAY_DIFFER,
    CommaList,
    Shard,
    checkpoint_option,
    guidance_scale_option,
    num_samples_option,
    num_steps_option,
    run_options,
    seed_option,
)
from polydit.core.cli.output import Output
from polydit.core.errors import InputError
from polydit.core.jobs import Manifest, ManifestRecord, RunFolder, Tally, run_batches
from polydit.molgen.checkpoint import Checkpoint
from polydit.molgen.formulas import parse_formula
from polydit.molgen.sampling_joined import joined_name, write_joined
from polydit.molgen.sampling_plan import BatchLimit, SamplingPlan, SizeDistribution, padded_tokens

if TYPE_CHECKING:
    from polydit.core.jobs.device import Device
    from polydit.core.jobs.manifest import Status
    from polydit.molgen.data.writers import Format
    from polydit.molgen.pipeline import MolgenPipeline
    from polydit.molgen.sampling_cost import SamplingCost

# XYZ has no place for a cell, SDF neither, and CIF needs one. The first is the default.
FORMATS: Mapping[str, tuple[Format, ...]] = {
    "molecule": ("sdf", "xyz", "extxyz"),
    "crystal": ("cif", "extxyz"),
}
REPORT, FIGURES = "report.html", "figures.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    """The options of one call, as click gives them."""

    kind: Literal["molecule", "crystal"]
    num_samples: int
    atoms: str
    formula: str
    spacegroup: int | None
    num_steps: int | None
    guidance_scale: float | None
    seed: int
    formats: tuple[Format, ...] | None
    checkpoint: str | None
    report: bool
    out: Path
    overwrite: bool
    batch_size: int | Literal["auto"]
    device: str
    dtype: str
    shard: Shard | None
    limit: int | None
    fail_fast: bool
    retry_failed: bool
    dry_run: bool


@dataclass(frozen=True, slots=True)
class _Job:
    """A call with everything filled in that its checkpoint says."""

    call: _Call
    checkpoint: Checkpoint
    plan: SamplingPlan
    formats: tuple[Format, ...]
    num_steps: int
    guidance_scale: float

    @property
    def kinds(self) -> str:
        return f"{self.call.kind}s"

    def cost(self) -> SamplingCost:
        from polydit.molgen.sampling_cost import SamplingCost

        scale = self.guidance_scale
        return SamplingCost.read(self.checkpoint.path, num_steps=self.num_steps, guidance_scale=scale)

    def batch_limit(self, device: Device) -> BatchLimit:
        if self.call.batch_size == "auto":
            return BatchLimit(tokens=self.cost().tokens_per_batch(device))
        return BatchLimit(items=self.call.batch_size)

    def missing(self, manifest: Manifest) -> int:
        """How many structures this call has to make."""
        done: tuple[Status, ...] = ("ok",) if self.call.retry_failed else ("ok", "failed")
        if not any(manifest.count(status) for status in done):
            return len(self.plan)
        return sum(manifest.status(sample.id) not in done for sample in self.plan)


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
@seed_option
@click.option(
    "--format", "formats", type=CommaList(["sdf", "xyz", "extxyz", "cif"]), default=None,
    show_default="sdf for molecules, cif for crystals", help="File formats, separated by commas.",
)  # fmt: skip
@checkpoint_option
@click.option("--report/--no-report", default=True, help=f"Write {REPORT} at the end.")
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
    job = _prepare(_Call(**values))
    if job.call.dry_run:
        _print_plan(job, output)
        return
    with _open_folder(job, effective_options(ctx)) as folder:
        tally = _make_missing(job, folder, output)
        products = write_joined(folder, job.call.kind, job.formats)
        _warn_of_failures(folder, output)
    if job.call.report:
        from polydit.molgen.report import write_report

        write_report(job.call.out)
        products += [FIGURES, REPORT]
    _print_summary(job, tally, products, output)
    ctx.exit(tally.exit_code)


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
    if call.device not in ("auto", "cpu"):  # these two are always there, and cost no import of torch to know
        from polydit.core.jobs.device import choose_device

        choose_device(call.device)
    num_steps = checkpoint.num_steps if call.num_steps is None else call.num_steps
    scale = checkpoint.guidance_scale if call.guidance_scale is None else call.guidance_scale
    return _Job(call, checkpoint, plan, formats, num_steps, scale)


def _atoms(call: _Call) -> str:
    """What `--atoms` amounts to: a formula says the number itself."""
    if call.formula in ("auto", "none"):
        return call.atoms
    count = str(sum(parse_formula(call.formula).values()))
    if call.atoms not in ("auto", count):
        raise InputError(f"{call.formula} has {count} atoms", where=f"--atoms {call.atoms}")
    return count


def _open_folder(job: _Job, options: Mapping[str, Option]) -> RunFolder:
    # As resolved, so that naming a default on the next call is no other setting.
    resolved = {
        "num_steps": job.num_steps,
        "guidance_scale": job.guidance_scale,
        "formats": list(job.formats),
    }
    known = {name: options[name]._replace(value=value) for name, value in resolved.items()}
    return RunFolder.open(
        job.call.out,
        command="molgen sample",
        options={**options, **known},
        provenance={"checkpoint": job.checkpoint.provenance()},
        overwrite=job.call.overwrite,
        free=MAY_DIFFER | {"report"},
        growing={"num_samples"},
        products=[*(joined_name(job.call.kind, name) for name in job.formats), REPORT, FIGURES],
    )


def _make_missing(job: _Job, folder: RunFolder, output: Output) -> Tally:
    missing = job.missing(folder.manifest)
    if not missing:
        output.note("Nothing left to do.")
        return run_batches(job.plan.batches(BatchLimit(items=1)), lambda batch: [], folder)
    from polydit.core.jobs.device import choose_device
    from polydit.molgen.sampling_run import Sampler

    device = choose_device(job.call.device)
    pipeline = _load(job, device)
    folder.note(device=device.name, processor=device.description)
    with output.progress(len(job.plan), what=job.kinds, initial=len(job.plan) - missing) as progress:

        def show(step: int, steps: int) -> None:
            progress.set_postfix_str(f"step {step}/{steps}")

        def tell(record: ManifestRecord) -> None:
            output.item(record)
            progress.update()

        sampler = Sampler(
            pipeline=pipeline,
            kind=job.call.kind,
            formats=job.formats,
            num_steps=job.num_steps,
            guidance_scale=job.guidance_scale,
            spacegroup=job.call.spacegroup or 0,
            model=f"{job.checkpoint.name} sha256:{job.checkpoint.sha256[:12]}",
            on_step=show,
        )
        return run_batches(
            job.plan.batches(job.batch_limit(device)),
            sampler,
            folder,
            weight=padded_tokens,
            retry_failed=job.call.retry_failed,
            fail_fast=job.call.fail_fast,
            on_record=tell,
        )


def _load(job: _Job, device: Device) -> MolgenPipeline:
    from torch import nn

    from polydit.core.jobs.device import choose_dtype
    from polydit.molgen.pipeline import MolgenPipeline

    pipeline = MolgenPipeline.from_pretrained(job.checkpoint.path)
    # The decoder stays in float32: it runs once, and rounding there would move atoms. torch's own `to`, since
    # diffusers' warns that parts of a network may have to stay in float32, and this one has none.
    nn.Module.to(pipeline.denoiser, choose_dtype(job.call.dtype))
    return pipeline.to(device.name)


def _warn_of_failures(folder: RunFolder, output: Output) -> None:
    first = next(folder.manifest.records("failed"), None)
    if first is not None:
        number, where = folder.manifest.count("failed"), folder.path / "manifest.jsonl"
        why = f"{first['id']}: {first['error']['message']}"
        output.warn(f"{number} failed, the first of them {why}. All are in {where}.")


def _print_summary(job: _Job, tally: Tally, products: list[str], output: Output) -> None:
    out = job.call.out
    done, failed = tally.ok + tally.kept_ok, tally.failed + tally.kept_failed
    record = {
        "out": str(out),
        "done": done,
        "failed": failed,
        "new": tally.ok + tally.failed,
        "products": [str(out / name) for name in products],
    }
    lines = [f"{out / name}" for name in products]
    output.summary(record, *lines, f"{done} {job.kinds} in {out}")


def _print_plan(job: _Job, output: Output) -> None:
    from polydit.core.jobs.device import choose_device

    device, cost, plan = choose_device(job.call.device), job.cost(), job.plan
    missing = job.missing(Manifest(job.call.out / "manifest.jsonl"))
    smallest, largest = plan.sizes.sizes[0], plan.sizes.sizes[-1]
    tokens = job.batch_limit(device).most(largest) * largest
    seconds, memory = cost.seconds(missing, plan.sizes.mean, device), cost.memory_bytes(tokens)
    record = {
        "out": str(job.call.out),
        "kind": job.call.kind,
        "num_samples": len(plan),
        "missing": missing,
        "atoms": [smallest, largest],
        "mean_atoms": plan.sizes.mean,
        "checkpoint": job.checkpoint.name,
        "parameters": cost.parameters,
        "num_steps": job.num_steps,
        "guidance_scale": job.guidance_scale,
        "device": device.name,
        "tokens_per_batch": tokens,
        "formats": list(job.formats),
        "estimated_seconds": seconds,
        "estimated_memory_bytes": memory,
    }
    atoms = f"{smallest} to {largest} atoms, {plan.sizes.mean:.1f} on average"
    memory_gb = f"{memory / 1e9:.1f} GB"
    output.summary(
        {"dry_run": True, **record},
        f"would make: {missing} {job.kinds} of {atoms}",
        f"checkpoint: {job.checkpoint.name}, {cost.parameters:,} parameters",
        f"sampling:   {job.num_steps} steps, guidance scale {job.guidance_scale:g}, seed {plan.seed}",
        f"device:     {device.name} ({device.description}), up to {tokens} atoms at once",
        f"estimate:   {_duration(seconds)} of computing, {memory_gb} of memory; a model, not a measurement",
        f"into:       {job.call.out} as {', '.join(job.formats)}",
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
