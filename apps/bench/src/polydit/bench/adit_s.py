"""ADiT-S on both sides: the plain transcription and our pipeline, with the same random weights.

The weights reach our side through the converter that users of published checkpoints get.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from polydit.bench.plain_adit import PlainDiT, sample_latents
from polydit.bench.plain_autoencoder import PlainAutoencoder
from polydit.core.nn.patterns import padding_of
from polydit.molgen.batch import KIND_LABELS
from polydit.molgen.convert import SIZE_HISTOGRAMS, autoencoder_from_published, denoiser_from_published
from polydit.molgen.data.structure import Rejected, Structure
from polydit.molgen.model import DecodedAtoms
from polydit.molgen.pipeline import MolgenPipeline, Prior, SampleRequest, flow_scheduler, to_structures
from polydit.molgen.sampling_plan import PlannedSample, SamplingPlan, SizeDistribution

Results = list[Structure | Rejected]
WEIGHT_STD = 0.03  # large enough that gates, scales and attention all matter


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Sizes of the two networks; the defaults are ADiT-S and the published autoencoder."""

    width: int = 384
    depth: int = 12
    heads: int = 6
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 8


@dataclass(frozen=True, slots=True, eq=False)
class AditS:
    """The same network twice; `pipeline` is ours."""

    plain: PlainDiT
    plain_autoencoder: PlainAutoencoder
    pipeline: MolgenPipeline

    @torch.no_grad()
    def plain_job(
        self, requests: Sequence[SampleRequest], *, batch_size: int, num_steps: int, guidance_scale: float
    ) -> Results:
        """Sample the published way: requests as they come, fixed batches padded to the longest, fp32."""
        results: Results = []
        for start in range(0, len(requests), batch_size):
            results += self._plain_batch(requests[start : start + batch_size], num_steps, guidance_scale)
        return results

    def _plain_batch(self, batch: Sequence[SampleRequest], num_steps: int, scale: float) -> Results:
        sizes = torch.tensor([request.num_atoms for request in batch])
        mask = padding_of(sizes, int(sizes.max()))
        channels = self.pipeline.denoiser.config.latent_channels
        noise = Prior(batch, mask.shape[1], channels, mask.device)()  # the same per request as on our side
        dataset = torch.tensor([KIND_LABELS[request.kind] for request in batch])
        spacegroup = torch.tensor([request.spacegroup for request in batch])
        run = sample_latents(
            self.plain, noise, dataset, spacegroup, mask, num_steps=num_steps, guidance_scale=scale
        )
        decoded = self.plain_autoencoder.decode(run.predictions[-1], mask)
        atoms = DecodedAtoms(
            decoded.atom_types, decoded.positions, decoded.frac_coords, decoded.lengths, decoded.angles
        )
        return to_structures(batch, atoms)


def adit_s(size: Size | None = None, *, seed: int = 0) -> AditS:
    """Both sides with the same weights, in float32 and eval mode."""
    size = size or Size()
    generator = torch.Generator().manual_seed(seed)
    plain = PlainDiT(d_model=size.width, num_layers=size.depth, nhead=size.heads)
    autoencoder = PlainAutoencoder(
        d_model=size.decoder_width,
        nhead=size.decoder_heads,
        dim_feedforward=4 * size.decoder_width,
        num_layers=size.decoder_depth,
    )
    for module in (plain, autoencoder):
        _randomise(module, generator)
    pipeline = MolgenPipeline(
        autoencoder=autoencoder_from_published(autoencoder.state_dict(), heads=size.decoder_heads),
        denoiser=denoiser_from_published(plain.state_dict(), heads=size.heads),
        scheduler=flow_scheduler(),
        size_histograms=SIZE_HISTOGRAMS,
    )
    return AditS(plain.eval(), autoencoder.eval(), pipeline)


def _randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Normal weights everywhere but in norms: the published zeros would leave nothing to compare."""
    for part in module.modules():
        if not isinstance(part, nn.LayerNorm):
            for parameter in part.parameters(recurse=False):
                nn.init.normal_(parameter, std=WEIGHT_STD, generator=generator)


def in_precision(pipeline: MolgenPipeline, dtype: torch.dtype) -> MolgenPipeline:
    """The pipeline with its denoiser in `dtype`; the decoder, one call of a hundred, keeps its own."""
    other = copy.deepcopy(pipeline)
    other.denoiser.to(dtype=dtype)
    return other


def molecule_plan(num_samples: int, histogram: Mapping[str, int] | None = None) -> SamplingPlan:
    """Molecules whose sizes follow a histogram, QM9's unless another is given."""
    sizes = SizeDistribution.parse("auto", histogram or SIZE_HISTOGRAMS["molecule"], kind="molecule")
    return SamplingPlan(kind="molecule", num_samples=num_samples, sizes=sizes)


def request_of(sample: PlannedSample) -> SampleRequest:
    """A planned molecule as the pipeline takes it."""
    return SampleRequest(id=sample.id, kind="molecule", num_atoms=sample.num_atoms, seed=sample.seed)
