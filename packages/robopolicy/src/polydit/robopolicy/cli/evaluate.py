"""`robopolicy evaluate`: a policy in a simulator, episode by episode, into a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from polydit.core.cli.config import Option, effective_options
from polydit.core.cli.options import (
    MAY_DIFFER,
    checkpoint_option,
    config_option,
    device_option,
    dry_run_option,
    fail_fast_option,
    limit_option,
    num_steps_option,
    out_option,
    output_options,
    overwrite_option,
    report_option,
    retry_failed_option,
    seed_option,
    shard_option,
    workers_option,
)
from polydit.core.cli.output import Output
from polydit.core.cli.sampling import cache_option
from polydit.core.jobs import ManifestRecord, RunFolder, Tally
from polydit.core.sampling.cache.named import NONE
from polydit.core.sampling.cache.report import CacheTally
from polydit.robopolicy.cli.evaluation_job import EvaluationCall, EvaluationJob, prepare
from polydit.robopolicy.envs import environments
from polydit.robopolicy.evaluate.choice import BASELINES
from polydit.robopolicy.evaluate.plan import FIRST_SEED
from polydit.robopolicy.evaluate.summary import Summary

if TYPE_CHECKING:
    from polydit.robopolicy.evaluate.workers import Scene

EPISODES, FIGURES, REPORT = "episodes.csv", "figures.json", "report.html"
_LARGEST_SEED = 2**31 - 1  # what every simulator takes


@click.command()
@click.option("--env", type=click.Choice(environments()), default="metaworld", help="The simulator.")
@click.option(
    "--task", multiple=True, metavar="NAME", show_default="those that the policy was trained on",
    help="A task of it; may be repeated.",
)  # fmt: skip
@click.option("--tasks", type=click.Choice(["all"]), default=None, show_default=False, help="All its tasks.")
@click.option("--episodes", type=click.IntRange(min=0), default=50, help="Episodes per task.")
@checkpoint_option
@click.option(
    "--policy", type=click.Choice(BASELINES), default=None, show_default="the checkpoint",
    help="A baseline in place of a checkpoint: the task's scripted expert, random actions, or zeros.",
)  # fmt: skip
@click.option(
    "--execute", type=click.IntRange(min=1), default=None, metavar="K", show_default="the checkpoint's",
    help="Execute K actions of each chunk, then plan again.",
)  # fmt: skip
@num_steps_option
@cache_option
@click.option(
    "--max-steps", type=click.IntRange(min=1), default=None, show_default="the environment's limit",
    help="Give an episode up after so many steps.",
)  # fmt: skip
@seed_option(
    type=click.IntRange(0, _LARGEST_SEED), default=FIRST_SEED,
    help="Seed of every task's first episode, the next ones count up. Demonstrations have those from 0 up.",
)  # fmt: skip
@click.option(
    "--video", type=click.IntRange(min=0), default=0, metavar="N",
    help="Film the first N episodes of each task (mp4).",
)  # fmt: skip
@click.option(
    "--plots", type=click.IntRange(min=0), default=1, metavar="N",
    help="Keep and plot the actions of the first N episodes of each task.",
)  # fmt: skip
@report_option
@out_option
@overwrite_option
@config_option
@workers_option(help="Processes side by side, each with its own simulator and one thread.")
@device_option
@shard_option
@limit_option
@fail_fast_option
@retry_failed_option
@dry_run_option
@output_options
@click.pass_context
def evaluate(ctx: click.Context, /, output: Output, **values: Any) -> None:
    """Run a policy in a simulator and count successes.

    \b
    robopolicy evaluate --task drawer-open-v3 --episodes 50 --out run/
    robopolicy evaluate --checkpoint policy/ --workers 2 --video 2 --out run/
    robopolicy evaluate --tasks all --policy expert --episodes 20 --out expert/

    Episodes are recorded as they end. The same command run again goes on where it stopped, and a larger
    --episodes adds to a run: an episode depends on its task and its seed, not on the number of workers.
    """
    job = prepare(EvaluationCall(**values))
    if job.call.dry_run:
        _print_plan(job, output)
        return
    if job.missing():
        job.scene().check(job.plan.tasks[0], job.call.seed)
    with _open_folder(job, effective_options(ctx)) as folder:
        tally = _run_missing(job, folder, output)
        summary = Summary.of(folder.manifest.records())
        _write_figures(job, folder, summary)
        caches = _record_cache(job, folder, output)
        _warn_of_failures(folder, output)
    products = [EPISODES, FIGURES]
    if job.call.report:
        from polydit.robopolicy.report import write_report

        write_report(job.call.out)
        products.append(REPORT)
    _print_summary(job, tally, summary, caches, products, output)
    ctx.exit(tally.exit_code)


def _open_folder(job: EvaluationJob, options: Mapping[str, Option]) -> RunFolder:
    # As resolved, so that naming a default on the next call is no other setting.
    resolved: dict[str, Any] = {"task": list(job.plan.tasks), "tasks": None}
    if job.checkpoint:
        resolved |= {"execute": job.policy.execute, "num_steps": job.policy.num_steps or None}
        resolved |= {"cache": job.policy.cache}
    known = {name: options[name]._replace(value=value) for name, value in resolved.items()}
    return RunFolder.open(
        job.call.out,
        command="robopolicy evaluate",
        options={**options, **known},
        provenance={"checkpoint": job.checkpoint.provenance()} if job.checkpoint else {},
        overwrite=job.call.overwrite,
        free=MAY_DIFFER | {"report"},
        growing={"episodes"},
        products=[EPISODES, FIGURES, REPORT],
    )


def _run_missing(job: EvaluationJob, folder: RunFolder, output: Output) -> Tally:
    from polydit.robopolicy.evaluate.workers import play_episodes

    call, missing, scene = job.call, job.missing(), job.scene()
    if missing:
        scene = _on_device(job, scene, folder)
    else:
        output.note("Nothing left to do.")
    total, successes = len(job.plan), 0
    with output.progress(total, what="episodes", unit="episode", initial=total - missing) as progress:

        def tell(record: ManifestRecord) -> None:
            nonlocal successes
            successes += bool(record["measures"].get("success"))
            output.item(record)
            progress.set_postfix_str(f"{successes} successes")
            progress.update()

        return play_episodes(
            job.plan,
            scene,
            folder,
            workers=call.workers,
            retry_failed=call.retry_failed,
            fail_fast=call.fail_fast,
            on_record=tell,
        )


def _on_device(job: EvaluationJob, scene: Scene, folder: RunFolder) -> Scene:
    """A network has a device; a baseline has not, and needs no torch to say so."""
    if job.checkpoint is None:
        return scene
    from polydit.core.jobs.device import choose_device

    device = choose_device(job.call.device)
    folder.note(device=device.name, processor=device.description)
    return replace(scene, policy=replace(scene.policy, device=device.name))


def _write_figures(job: EvaluationJob, folder: RunFolder, summary: Summary) -> None:
    head = {"env": job.call.env, "policy": job.policy.name, "max_steps": job.call.max_steps}
    folder.write_product(EPISODES, [summary.csv()])
    text = json.dumps({**head, **summary.to_json()}, indent=2, ensure_ascii=False)
    folder.write_product(FIGURES, [f"{text}\n".encode()])


def _record_cache(job: EvaluationJob, folder: RunFolder, output: Output) -> CacheTally:
    """What the cache did in all episodes, into run.json; loud if it did nothing, or harm."""
    caches = CacheTally()
    for record in folder.manifest.records("ok"):
        if did := record["measures"].get("cache"):
            caches.add_record(did)
    if job.policy.cache != NONE and folder.manifest.count("ok"):
        folder.note(cache={"setting": job.policy.cache, **caches.record()})
        if complaint := caches.complaint(job.policy.cache, "actions"):
            output.warn(complaint)
    return caches


def _warn_of_failures(folder: RunFolder, output: Output) -> None:
    first = next(folder.manifest.records("failed"), None)
    if first is not None:
        number, where = folder.manifest.count("failed"), folder.path / "manifest.jsonl"
        why = f"{first['id']}: {first['error']['message']}"
        output.warn(f"{number} broke off, the first of them {why}. All are in {where}.")


def _print_summary(
    job: EvaluationJob,
    tally: Tally,
    summary: Summary,
    caches: CacheTally,
    products: list[str],
    output: Output,
) -> None:
    out = job.call.out
    if not output.json:
        every = [*summary.tasks, *([summary.all] if len(summary.tasks) > 1 else [])]
        output.table([
            {
                "task": episodes.name,
                "success": episodes.success.percent(),
                "95 % interval": episodes.success.percent_interval(),
                "count": f"{episodes.success.numerator}/{episodes.success.denominator}",
                "steps": episodes.steps_to_success,
                "ms per chunk": episodes.inference_ms,
            }
            for episodes in every
        ])  # fmt: skip
    record = {
        "out": str(out),
        "done": tally.ok + tally.kept_ok,
        "failed": tally.failed + tally.kept_failed,
        "new": tally.ok + tally.failed,
        "products": [str(out / name) for name in products],
        **summary.to_json(),
    }
    lines = [f"{out / name}" for name in products]
    if caches.runs:
        record["cache"] = {"setting": job.policy.cache, **caches.record()}
        lines.append(f"cache {job.policy.cache}: {caches}")
    output.summary(record, *lines, f"{record['done']} episodes in {out}")


def _print_plan(job: EvaluationJob, output: Output) -> None:
    from polydit.core.jobs.memory import peak_memory_mb

    call, plan, scene = job.call, job.plan, job.scene()
    missing = job.missing()
    record: dict[str, Any] = {
        "out": str(call.out),
        "env": call.env,
        "tasks": list(plan.tasks),
        "episodes": len(plan),
        "missing": missing,
        "policy": job.policy.name,
        "execute": job.policy.execute,
        "cache": job.policy.cache,
        "workers": call.workers,
    }
    lines = [
        f"would run:  {missing} episodes of {len(plan.tasks)} tasks of {call.env}, seeds from {call.seed}",
        f"policy:     {job.model}, {job.policy.execute} actions of each chunk, cache {job.policy.cache}",
    ]
    if missing:
        scene.check(plan.tasks[0], call.seed)
        per_step, limit = scene.measure(plan.tasks[0], call.seed)
        record["estimated_seconds"] = per_step * limit * missing / call.workers
        record["estimated_memory_bytes"] = round(peak_memory_mb() * 2**20) * (call.workers + 1)
        lines += [
            f"estimate:   at most {record['estimated_seconds'] / 60:.1f} min ({1000 * per_step:.2g} ms a step, as "
            f"a few took here; {limit} steps an episode), {record['estimated_memory_bytes'] / 1e9:.1f} GB of memory",
        ]
    output.summary({"dry_run": True, **record}, *lines, f"into:       {call.out}")
