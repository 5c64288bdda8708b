"""A whole sampling job of ADiT-S: ours as molgen runs it against the transcription run the published way."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from polydit.bench.adit_s import AditS, Results, Size, adit_s, in_precision, molecule_plan, request_of
from polydit.bench.measure import interleave, paired_ratio, threads
from polydit.bench.rows import Row
from polydit.core.errors import CheckpointError
from polydit.molgen.batch import KIND_LABELS
from polydit.molgen.checkpoint import Checkpoint
from polydit.molgen.data.structure import Structure
from polydit.molgen.pipeline import MolgenPipeline, SampleRequest
from polydit.molgen.sampling_plan import BatchLimit, SamplingPlan

GUIDANCE = 2.0
PLAIN_BATCH = 32
SLOTS = 512  # atom slots of our batches: what `--batch-size auto` takes for two cores
THREADS = 2


def job_rows(*, quick: bool, size: Size | None = None) -> Iterator[Row]:
    """Samples per second of both sides, ours in bfloat16 and in float32."""
    count, steps, rounds = (48, 10, 2) if quick else (64, 100, 2)
    both, plan = adit_s(size), molecule_plan(count)
    requests = [request_of(sample) for sample in plan]
    run_plain = partial(both.plain_job, batch_size=PLAIN_BATCH, guidance_scale=GUIDANCE)
    half = in_precision(both.pipeline, torch.bfloat16)
    with threads(THREADS):
        _check_same_results(both, requests[:4])
        for pipeline in (both.pipeline, half):
            our_job(pipeline, molecule_plan(8), num_steps=2)  # warm-up
        timings = interleave(
            {
                "plain": partial(run_plain, requests, num_steps=steps),
                "ours": partial(our_job, half, plan, num_steps=steps),
                "ours, fp32": partial(our_job, both.pipeline, plan, num_steps=steps),
            },
            rounds=rounds,
            warm_up=0,
        )
    plain = timings["plain"]
    for name, asked, aim in (("ours", 3.0, 6.0), ("ours, fp32", None, None)):
        ours = timings[name]
        yield Row(
            key=f"job {name}",
            what=f"ADiT-S, {steps} guided steps, QM9's sizes, whole job: samples/s of {name} over plain",
            value=paired_ratio(plain.wall, ours.wall),
            unit="×",
            asked=asked,
            aim=aim,
            more_is_better=True,
            how=f"{count} molecules, from requests to structures, {THREADS} threads, wall time, {rounds} "
            f"interleaved rounds: {count / ours.median:.3g} against {count / plain.median:.3g} samples/s, by "
            f"CPU time {paired_ratio(plain.cpu, ours.cpu):.3g} ×; plain: fp32, batches of {PLAIN_BATCH} padded "
            f"to the longest; ours: {'fp32' if 'fp32' in name else 'bf16 denoiser'}, batches of similar sizes "
            f"of {SLOTS} atom slots",
            details={"ours": ours.wall, "plain": plain.wall, "ours_cpu": ours.cpu, "plain_cpu": plain.cpu},
        )


def our_job(pipeline: MolgenPipeline, plan: SamplingPlan, *, num_steps: int) -> Results:
    """All structures of the plan, in batches of similar sizes."""
    return [
        result
        for batch in _batches(plan)
        for result in pipeline(batch, num_steps=num_steps, guidance_scale=GUIDANCE)
    ]


def _batches(plan: SamplingPlan) -> Iterator[list[SampleRequest]]:
    for batch in plan.batches(BatchLimit(tokens=SLOTS)):
        yield [request_of(sample) for sample in batch]


def _check_same_results(both: AditS, requests: list[SampleRequest]) -> None:
    """A ratio of two programs that compute different things means nothing."""
    theirs = both.plain_job(requests, batch_size=4, num_steps=3, guidance_scale=GUIDANCE)
    ours = both.pipeline(requests, num_steps=3, guidance_scale=GUIDANCE)
    for a, b in zip(theirs, ours, strict=True):
        assert isinstance(a, Structure) and isinstance(b, Structure), "any numbers describe a molecule"
        assert np.abs(a.positions - b.positions).max() < 1e-3, f"{a.id} differs"


def precision_rows(*, quick: bool, checkpoint: str | None = None) -> Iterator[Row]:
    """The denoiser in bfloat16 against float32 with the same noise: ADiT-S, and a trained checkpoint."""
    yield _precision_row(adit_s().pipeline, "ADiT-S with random weights", count=16, steps=6 if quick else 100)
    try:
        found = Checkpoint.find(checkpoint)
        pipeline = MolgenPipeline.from_pretrained(found.path)
    except CheckpointError as error:
        name = checkpoint or "the starter"
        yield Row(key="bf16 trained", what=f"bf16 against fp32, {name}", value=None, unit="Å", how=str(error))
        return
    count = 16 if quick else 200
    yield _precision_row(pipeline, found.name, count=count, steps=10 if quick else found.num_steps)


def _precision_row(pipeline: MolgenPipeline, name: str, *, count: int, steps: int) -> Row:
    histogram = pipeline.config.size_histograms["molecule"]
    plan = molecule_plan(count, histogram)
    with threads(THREADS):
        exact = list(_latents_and_positions(pipeline, plan, steps))
        rough = list(_latents_and_positions(in_precision(pipeline, torch.bfloat16), plan, steps))
    latents = np.concatenate([(a - b).ravel() for (a, _), (b, _) in zip(exact, rough, strict=True)])
    spread = np.concatenate([a.ravel() for a, _ in exact]).std()
    moved = np.array(
        [np.sqrt(((a - b) ** 2).sum(axis=1).mean()) for (_, a), (_, b) in zip(exact, rough, strict=True)]
    )
    latent_rms, rms = (float(np.sqrt((values**2).mean())) for values in (latents, moved))
    return Row(
        key=f"bf16 {name}",
        what=f"bf16 against fp32, {name}: median over molecules of the RMS displacement of their atoms",
        value=float(np.median(moved)),
        unit="Å",
        how=f"{count} molecules, {steps} guided steps, the same noise; RMS over all molecules {rms:.2g} Å, "
        f"largest of a molecule {moved.max():.2g} Å; latents: RMS {latent_rms:.2g}, largest "
        f"{np.abs(latents).max():.2g}, beside a standard deviation of {spread:.2g}",
        details={"per_molecule": moved.tolist(), "latent_rms": latent_rms},
    )


@torch.no_grad()
def _latents_and_positions(
    pipeline: MolgenPipeline, plan: SamplingPlan, steps: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per molecule: latents (n, c), and positions (n, 3) in Å about their centre."""
    for batch in _batches(plan):
        sizes = torch.tensor([request.num_atoms for request in batch])
        mask = torch.arange(int(sizes.max())) < sizes[:, None]
        made = pipeline.generate_latents(batch, mask, steps, GUIDANCE)
        kinds = torch.full((len(batch),), KIND_LABELS["molecule"])
        decoded = pipeline.autoencoder.decode(pipeline.autoencoder.denormalize(made, kinds), mask)
        for row, size in enumerate(sizes.tolist()):
            atoms = 10.0 * decoded.positions_nm[row, :size].double().numpy()
            yield made[row, :size].numpy(), atoms - atoms.mean(axis=0)
