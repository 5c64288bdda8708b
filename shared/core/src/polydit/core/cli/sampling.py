"""What every command that samples does around its network: folder, resume, progress, summary, dry run.

A command gathers its options in a `SamplingCall`, fills in what the checkpoint says as a `SamplingJob`, and calls its
`run`. Nothing here imports torch before an item needs it.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

import click

from polydit.core.cli.config import Option, effective_options
from polydit.core.cli.options import MAY_DIFFER, SharedOption
from polydit.core.cli.output import Output
from polydit.core.errors import InputError
from polydit.core.jobs import Manifest, ManifestRecord, RunFolder, Tally, run_batches
from polydit.core.jobs.items import Item, Outcome
from polydit.core.jobs.plan import Plan, Shard
from polydit.core.sampling.cache.named import AUTO, CACHES, NONE, CacheSetting
from polydit.core.sampling.cache.report import CacheTally, CacheWarning
from polydit.core.sampling.cache.suggested import settled, suggestion

if TYPE_CHECKING:
    from polydit.core.checkpoints.checkpoint import Checkpoint
    from polydit.core.jobs.device import Device

T = TypeVar("T", bound=Item)
Work: TypeAlias = Callable[[Sequence[T]], Sequence[Outcome]]
OnStep: TypeAlias = Callable[[int, int], None]

REPORT, FIGURES = "report.html", "figures.json"


def _check_cache(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Callback of ``--cache``: the setting with all its options, so that run.json repeats it whatever the defaults."""
    try:
        return AUTO if value == AUTO else str(CacheSetting.parse(value))
    except InputError as error:
        raise click.BadParameter(str(error), ctx, param) from error


cache_option = SharedOption(
    "--cache", default=AUTO, callback=_check_cache, metavar="|".join((AUTO, *CACHES)),
    help="Forecast some steps in place of computing them: faster, a little less exact. auto: as the checkpoint "
    "suggests for its own number of steps. Options in brackets, as in 'newton(every=4)'. cg-taylor and fbcache choose "
    "the steps of a whole batch.",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingCall:
    """The options that every such call has, as click gives them; a command adds its own."""

    num_steps: int | None
    guidance_scale: float | None
    seed: int
    formats: tuple[Any, ...] | None
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
    cache: str = NONE  # of commands without the option

    def check_device(self) -> None:
        """Raises InputError if the device is not there; no import of torch for those that always are."""
        if self.device not in ("auto", "cpu"):
            from polydit.core.jobs.device import choose_device

            choose_device(self.device)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call costs, by a model of the arithmetic.

    Args:
        parameters: Of all networks.
        seconds: Of computing.
        memory_bytes: At the peak.
        at_once: What a batch holds, as a text such as "8 clouds".
    """

    parameters: int
    seconds: float
    memory_bytes: float
    at_once: str


@dataclass(frozen=True, kw_only=True)
class SamplingJob(ABC, Generic[T]):
    """A call with everything filled in that its checkpoint says; each command derives its own from it.

    Args:
        call: The options.
        checkpoint: Where the network comes from.
        plan: The items.
        formats: Of the items' files.
        num_steps: Steps of the sampler.
        guidance_scale: 1 = none, 0 = without the condition.
        caches: What the cache did in each batch of the call.
    """

    command: ClassVar[str]  # as the user types it, such as "tool sample"
    growing: ClassVar[frozenset[str]] = frozenset({"num_samples"})

    call: SamplingCall
    checkpoint: Checkpoint
    plan: Plan[T]
    formats: tuple[Any, ...]
    num_steps: int
    guidance_scale: float
    caches: CacheTally = field(default_factory=CacheTally)

    @property
    @abstractmethod
    def noun(self) -> str:
        """What is made, in the plural."""

    @abstractmethod
    def batches(self, device: Device) -> Iterable[Sequence[T]]:
        """The items of this call in batches that suit the device."""

    @abstractmethod
    def load(self, device: Device, on_step: OnStep) -> Work[T]:
        """Loads the weights and returns what turns a batch into outcomes."""

    @abstractmethod
    def write_report(self) -> None:
        """Writes the report page and the figures beside it into the finished run folder."""

    @abstractmethod
    def estimate(self, missing: int, device: Device) -> Estimate:
        """What it costs to make so many items."""

    @abstractmethod
    def facts(self, device: Device) -> tuple[dict[str, Any], str]:
        """What a dry run says of the items: for a program, and as the end of "would make: 10 ..."."""

    def weight(self, batch: Sequence[T]) -> int | float:
        """What a batch costs in memory, in any unit."""
        return len(batch)

    def joined_names(self) -> list[str]:
        """Names of the files that `write_joined` may write."""
        return []

    def write_joined(self, folder: RunFolder) -> list[str]:
        """Writes files that are made from all items; returns their names."""
        return []

    @property
    def cache(self) -> str:
        """What `--cache` amounts to.

        Raises:
            CheckpointError: The checkpoint suggests one that does not exist.
        """
        suggested = suggestion(self.checkpoint.index, self.num_steps)
        return settled(self.call.cache, suggested, self.checkpoint.path)

    @property
    def model(self) -> str:
        """The checkpoint's name and digest, for the files themselves."""
        return f"{self.checkpoint.name} sha256:{self.checkpoint.sha256[:12]}"

    def run(self, ctx: click.Context, output: Output) -> None:
        """Does the call and ends it with its exit code."""
        if self.call.dry_run:
            self._print_plan(output)
            return
        options = effective_options(ctx)
        self._say_what_auto_is(options, output)
        with self._open_folder(options) as folder:
            tally = self._make_missing(folder, output)
            self._record_cache(folder, tally, output)
            products = self.write_joined(folder)
            warn_of_failures(folder, output)
        if self.call.report:
            self.write_report()
            products += [FIGURES, REPORT]
        self._print_summary(tally, products, output)
        ctx.exit(tally.exit_code)

    def _count(self, number: int) -> str:
        """Such as "1 cloud" or "2 clouds"."""
        return f"{number} {self.noun.removesuffix('s') if number == 1 else self.noun}"

    def _missing(self, manifest: Manifest) -> int:
        return self.plan.missing(manifest, retry_failed=self.call.retry_failed)

    def _open_folder(self, options: Mapping[str, Option]) -> RunFolder:
        # As resolved, so that naming a default on the next call is no other setting.
        known = {
            name: options[name]._replace(value=value)
            for name, value in self.resolved().items()
            if name in options
        }
        return RunFolder.open(
            self.call.out,
            command=self.command,
            options={**options, **known},
            provenance={"checkpoint": self.checkpoint.provenance()},
            overwrite=self.call.overwrite,
            free=MAY_DIFFER | {"report"},
            growing=self.growing,
            products=[*self.joined_names(), REPORT, FIGURES],
        )

    def resolved(self) -> dict[str, Any]:
        """Options that the checkpoint or another option decided."""
        return {
            "num_steps": self.num_steps,
            "guidance_scale": self.guidance_scale,
            "formats": list(self.formats),
            "cache": self.cache,
        }

    def _make_missing(self, folder: RunFolder, output: Output) -> Tally:
        missing = self._missing(folder.manifest)
        if not missing:
            output.note("Nothing left to do.")
            return run_batches(self.plan.groups(1), lambda batch: [], folder)
        from polydit.core.jobs.device import choose_device

        device = choose_device(self.call.device)
        with output.progress(len(self.plan), what=self.noun, initial=len(self.plan) - missing) as progress:

            def show(step: int, steps: int) -> None:
                progress.set_postfix_str(f"step {step}/{steps}")

            def tell(record: ManifestRecord) -> None:
                output.item(record)
                progress.update()

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CacheWarning)  # one for each batch; said once at the end
                work = self.load(device, show)
                folder.note(device=device.name, processor=device.description)
                return run_batches(
                    self.batches(device),
                    work,
                    folder,
                    weight=self.weight,
                    retry_failed=self.call.retry_failed,
                    fail_fast=self.call.fail_fast,
                    on_record=tell,
                )

    def _say_what_auto_is(self, options: Mapping[str, Option], output: Output) -> None:
        asked = options.get("cache")
        if asked is not None and asked.value == AUTO and asked.source != "default":
            steps = f"{self.num_steps} steps"
            output.note(f"--cache auto: checkpoint {self.checkpoint.name} suggests {self.cache} for {steps}.")

    def _record_cache(self, folder: RunFolder, tally: Tally, output: Output) -> None:
        """What the cache did, into run.json; loud if it did nothing, or if its forecasts are worse than zeros."""
        if self.cache == NONE or not tally.ok:
            return
        folder.note(cache={"setting": self.cache, **self.caches.record()})
        if complaint := self.caches.complaint(self.cache, self.noun):
            output.warn(complaint)

    def _print_summary(self, tally: Tally, products: Sequence[str], output: Output) -> None:
        out = self.call.out
        done, failed = tally.ok + tally.kept_ok, tally.failed + tally.kept_failed
        record = {
            "out": str(out),
            "done": done,
            "failed": failed,
            "new": tally.ok + tally.failed,
            "products": [str(out / name) for name in products],
        }
        lines = [f"{out / name}" for name in products]
        if self.caches.runs:
            record["cache"] = {"setting": self.cache, **self.caches.record()}
            lines.append(f"cache {self.cache}: {self.caches}")
        output.summary(record, *lines, f"{self._count(done)} in {out}")

    def _print_plan(self, output: Output) -> None:
        from polydit.core.jobs.device import choose_device

        device = choose_device(self.call.device)
        missing = self._missing(Manifest(self.call.out / "manifest.jsonl"))
        cost, (facts, text) = self.estimate(missing, device), self.facts(device)
        record = {
            "out": str(self.call.out),
            "num_samples": len(self.plan),
            "missing": missing,
            **facts,
            "checkpoint": self.checkpoint.name,
            "parameters": cost.parameters,
            "num_steps": self.num_steps,
            "guidance_scale": self.guidance_scale,
            "cache": self.cache,
            "device": device.name,
            "formats": list(self.formats),
            "estimated_seconds": cost.seconds,
            "estimated_memory_bytes": cost.memory_bytes,
        }
        scale, memory = f"{self.guidance_scale:g}", f"{cost.memory_bytes / 1e9:.1f} GB"
        output.summary(
            {"dry_run": True, **record},
            f"would make: {self._count(missing)} {text}",
            f"checkpoint: {self.checkpoint.name}, {cost.parameters:,} parameters",
            f"sampling:   {self.num_steps} steps, guidance scale {scale}, seed {self.plan.seed}",
            f"cache:      {self.cache}",
            f"device:     {device.name} ({device.description}), up to {cost.at_once} at once",
            f"estimate:   {duration(cost.seconds)} of computing, {memory} of memory; a model, not a measurement",
            f"into:       {self.call.out} as {', '.join(self.formats)}",
        )


def warn_of_failures(folder: RunFolder, output: Output) -> None:
    """Names the first failed item and where the others are."""
    first = next(folder.manifest.records("failed"), None)
    if first is not None:
        number, where = folder.manifest.count("failed"), folder.path / "manifest.jsonl"
        why = f"{first['id']}: {first['error']['message']}"
        output.warn(f"{number} failed, the first of them {why}. All are in {where}.")


def duration(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
