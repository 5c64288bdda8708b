"""What `polydit calibrate` samples of a checkpoint of structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from polydit.core.cli.settings import filled, refuse_new_noise
from polydit.core.errors import InputError
from polydit.core.nn.patterns import padding_of
from polydit.core.sampling.calibration import Setting
from polydit.molgen.checkpoint import Checkpoint
from polydit.molgen.model import LatentDiT
from polydit.molgen.pipeline import MolgenPipeline, SampleRequest
from polydit.molgen.sampling_plan import Kind, SamplingPlan, SizeDistribution

_KINDS: Mapping[str, Kind] = {"molecule": "molecule", "crystal": "crystal"}


@dataclass(frozen=True, slots=True)
class LatentSampler:
    """Latents of one checkpoint: what a sampler makes, before they are decoded to kinds of atoms and bonds.

    Args:
        pipeline: Makes them.
        requests: Which.
    """

    pipeline: MolgenPipeline
    requests: Sequence[SampleRequest]

    @property
    def network(self) -> LatentDiT:
        """What is called in every step."""
        return self.pipeline.denoiser

    @property
    def solvers(self) -> tuple[str, ...]:
        """Euler's steps on ADiT's grid."""
        return ("euler",)

    @property
    def default(self) -> Setting:
        """The checkpoint's."""
        steps = self.pipeline.config.num_steps
        return Setting(num_steps=steps, solver="euler", cache=self.pipeline.cache)

    @torch.no_grad()
    def __call__(self, setting: Setting) -> list[Float[Tensor, "n c"]]:
        """Latents of the atoms of each structure."""
        sizes = [request.num_atoms for request in self.requests]
        mask = padding_of(torch.tensor(sizes), max(sizes)).to(self.pipeline.device)
        scale = self.pipeline.config.guidance_scale
        latents = self.pipeline.generate_latents(
            self.requests, mask, setting.num_steps, scale, cache=setting.cache
        )
        return [row[:size].cpu() for row, size in zip(latents, sizes, strict=True)]


def latents(
    checkpoint: str | None, num_samples: int, request: Mapping[str, str]
) -> tuple[Checkpoint, LatentSampler]:
    """A checkpoint and its sampler.

    Args:
        checkpoint: As `molgen sample --checkpoint` takes it.
        num_samples: Structures of each run.
        request: May have `kind`, `atoms`, `formula` and `seed`, as the options of `molgen sample`.

    Raises:
        InputError: The request has another key or a value that is none.
        CheckpointError: There is no such checkpoint.
    """
    asked = filled(request, kind="molecule", atoms="auto", formula="auto", seed=0)
    if asked["kind"] not in _KINDS:
        raise InputError(
            f"there is no kind {asked['kind']!r}", where="--request", expected=" or ".join(_KINDS)
        )
    kind, found = _KINDS[asked["kind"]], Checkpoint.find(checkpoint)
    plan = SamplingPlan(
        kind=kind,
        num_samples=num_samples,
        sizes=SizeDistribution.parse(asked["atoms"], found.sizes(kind), kind=kind),
        formulas=found.formulas(kind, asked["formula"]),
        seed=asked["seed"],
    )
    requests = [
        SampleRequest(
            id=sample.id, kind=kind, num_atoms=sample.num_atoms, seed=sample.seed, formula=sample.formula
        )
        for sample in plan
    ]
    return found, LatentSampler(MolgenPipeline.from_pretrained(found.path), requests)


def sampler(
    checkpoint: str | None, num_samples: int, request: Mapping[str, str]
) -> tuple[Checkpoint, LatentSampler]:
    """The hook of `polydit calibrate`: as `latents`, of checkpoints whose runs can come near to one another.

    Raises:
        InputError: As `latents`, or the checkpoint's sampler draws new noise in every step.
        CheckpointError: There is no such checkpoint.
    """
    found, made = latents(checkpoint, num_samples, request)
    if made.pipeline.config.stochastic:
        refuse_new_noise(found, "structures")
    return found, made
