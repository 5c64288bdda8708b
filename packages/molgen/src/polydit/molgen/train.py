"""How ADiT's two networks are trained: first the autoencoder, then the denoiser on its latents.

The losses are ADiT's (Joshi et al. 2025, section 3 and appendix A). What differs from the published recipe is an option
with the published value as the other choice: canonical poses instead of random rotations, normalised latents.
Shapes: b structures, n atom slots, c latent channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from polydit.core.nn.embeddings import drop_labels
from polydit.core.objectives.flow import FlowMatching
from polydit.core.objectives.times import UniformTimes
from polydit.molgen.batch import CRYSTAL, MOLECULE, AtomBatch
from polydit.molgen.gfmdiff.loss import count_neighbours, geometric_loss
from polydit.molgen.model import NULL, AtomAutoencoder, DecodedAtoms, LatentDiT, Posterior

ANGSTROM_PER_NM = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderLoss:
    """Weights of the autoencoder's loss; the defaults are the published ones.

    Lattice terms and fractional positions count for crystals only, Cartesian positions for molecules only. Each term is
    averaged over all atoms (or structures, for the lattice) of the batch, those with weight 0 included.
    """

    types: float = 1.0
    lengths: float = 1.0
    angles: float = 10.0
    frac_coords: float = 10.0
    positions: float = 10.0
    kl: float = 1e-5

    def terms(self, decoded: DecodedAtoms, posterior: Posterior, batch: AtomBatch) -> dict[str, Tensor]:
        """Unweighted losses: per atom for types, frac_coords, positions and kl; per structure for lengths, angles."""
        target_nm = centred(batch.positions, batch.mask) / ANGSTROM_PER_NM
        return {
            "types": F.cross_entropy(
                decoded.type_logits.transpose(1, 2).float(), batch.numbers, reduction="none"
            ),
            "lengths": (decoded.lengths_scaled - batch.lengths_scaled).square().mean(-1),
            "angles": (decoded.angles - batch.angles).square().mean(-1),
            "frac_coords": (decoded.frac_coords - batch.frac_coords).square().mean(-1),
            "positions": (centred(decoded.positions_nm.float(), batch.mask) - target_nm).square().mean(-1),
            "kl": posterior.kl(),
        }

    def __call__(self, decoded: DecodedAtoms, posterior: Posterior, batch: AtomBatch) -> dict[str, Tensor]:
        """The sum, as "loss", and each weighted term."""
        crystal, molecule = (batch.kind == CRYSTAL).float(), (batch.kind == MOLECULE).float()
        weights = {
            "types": self.types * (crystal + molecule),
            "lengths": self.lengths * crystal,
            "angles": self.angles * crystal,
            "frac_coords": self.frac_coords * crystal,
            "positions": self.positions * molecule,
            "kl": self.kl * (crystal + molecule),
        }
        means: dict[str, Tensor] = {}
        for name, term in self.terms(decoded, posterior, batch).items():
            if term.ndim == 1:
                means[name] = (weights[name] * term).mean()
            else:
                means[name] = (weights[name][:, None] * term * batch.mask).sum() / batch.mask.sum()
        return {"loss": torch.stack(list(means.values())).sum(), **means}


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Noise on the autoencoder's input; targets keep the rotation and translation, not the noise.

    Args:
        rotate: A random rotation per structure (uniform on SO(3); the published draw covers one octant only).
        translate: Standard deviation in Å of a translation per structure.
        mask_types: Share of atoms whose type is hidden. Published: 0.1.
        noise_positions: Share of atoms that are moved by N(0, 0.1 Å). Published: 0.1.
    """

    rotate: bool = False
    translate: float = 0.0
    mask_types: float = 0.1
    noise_positions: float = 0.1

    def move(self, batch: AtomBatch, generator: torch.Generator) -> AtomBatch:
        """Rotate and translate whole structures."""
        positions = batch.positions
        if self.rotate:
            rotation = random_rotations(len(positions), generator).to(positions)
            positions = positions @ rotation.transpose(1, 2)
        if self.translate:
            shift = self.translate * torch.randn(len(positions), 1, 3, generator=generator)
            positions = positions + shift.to(positions)
        return replace(batch, positions=positions * batch.mask[..., None])

    def corrupt(self, batch: AtomBatch, generator: torch.Generator) -> AtomBatch:
        """Hide types and move single atoms; the input of the encoder, not its target."""
        shape, device = batch.numbers.shape, batch.numbers.device
        hidden = (torch.rand(shape, generator=generator) < self.mask_types).to(device)
        moved = (torch.rand(shape, generator=generator) < self.noise_positions).to(device) & batch.mask
        noise = 0.1 * torch.randn((*shape, 3), generator=generator).to(device) * moved[..., None]
        lattice = batch.lengths_scaled.sum(-1)[:, None, None] * batch.num_atoms[:, None, None] ** (1 / 3) / 3
        frac_noise = torch.where(lattice > 0, noise / lattice.clamp(min=1e-3), 0.0)
        return replace(
            batch,
            numbers=batch.numbers.masked_fill(hidden, 0),
            positions=batch.positions + noise,
            frac_coords=(batch.frac_coords + frac_noise) % 1.0,
        )


def random_rotations(count: int, generator: torch.Generator) -> Float[Tensor, "b 3 3"]:
    """Uniform rotations from normalised Gaussian quaternions."""
    w, x, y, z = F.normalize(torch.randn(count, 4, generator=generator), dim=1).unbind(1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=1).reshape(count, 3, 3)


def centred(x: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n c"]:
    """Subtract each row's mean over its real slots; padding becomes 0."""
    weight = mask[..., None].to(x.dtype)
    return (x - (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)) * weight


@dataclass(eq=False)
class AutoencoderTask:
    """Reconstruct structures from sampled latents."""

    model: AtomAutoencoder
    criterion: AutoencoderLoss = field(default_factory=AutoencoderLoss)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def loss(self, model: nn.Module, batch: AtomBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """ADiT's six terms, and the share of atom types that are right."""
        batch = self.augmentation.move(batch, generator)
        posterior = self.model.encode(self.augmentation.corrupt(batch, generator))
        noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
        decoded = self.model.decode(posterior.sample(noise), batch.mask)
        right = (decoded.type_logits.argmax(-1) == batch.numbers) & batch.mask
        return {**self.criterion(decoded, posterior, batch), "types_right": right.sum() / batch.mask.sum()}


def published_objective() -> FlowMatching:
    """ADiT's: predict x₁, t ~ U(0.01, 0.99), weight 1 / (1 - min(t, 0.9))²."""
    return FlowMatching(prediction="data", times=UniformTimes(0.01, 0.99), max_weight_time=0.9)


@dataclass(eq=False)
class DenoiserTask:
    """Flow matching on the latents of a frozen autoencoder.

    Args:
        model: The denoiser.
        autoencoder: Trained autoencoder, with its latent scale set.
        objective: Path, times and weight; the published one by default.
        label_dropout: Probability that kind, and independently space group, become null. Published: 0.1.
        self_condition: Probability that a batch sees a first prediction of its own. Published: 0.5.
        rotate: Rotate each structure at random before it is encoded; off with canonical poses.
        geometric_weight: Weight of GFMDiff's geometric loss on the decoded prediction of molecules; 0 = off.
        centred_prior: Subtract the mean over atoms from the noise, as published.
        tell_formula: Probability, by kind, that the network is told a structure's formula. Published: never.
    """

    model: LatentDiT
    autoencoder: AtomAutoencoder
    objective: FlowMatching = field(default_factory=published_objective)
    label_dropout: float = 0.1
    self_condition: float = 0.5
    rotate: bool = False
    geometric_weight: float = 0.0
    centred_prior: bool = True
    tell_formula: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.autoencoder.requires_grad_(False).eval()

    def loss(self, model: nn.Module, batch: AtomBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean over structures of the weighted error of the predicted latents."""
        if self.rotate:
            batch = Augmentation(rotate=True).move(batch, generator)
        latents = self.encode(batch, generator)
        prior = torch.randn(latents.shape, generator=generator).to(latents) * batch.mask[..., None]
        if self.centred_prior:
            prior = centred(prior, batch.mask)
        sample = self.objective.noisy(latents, prior, generator)
        labels = {
            "kind": self._drop(batch.kind, generator),
            "spacegroup": self._drop(batch.spacegroup, generator),
            "composition": self._composition(batch, generator),
        }
        previous = None
        if torch.rand((), generator=generator) < self.self_condition:
            with torch.no_grad():
                previous = model(sample.x_t, sample.t, **labels, mask=batch.mask)
        prediction = model(sample.x_t, sample.t, **labels, mask=batch.mask, self_condition=previous)
        per_structure = self.objective.loss(prediction, sample, batch.mask)
        plain = ((prediction.float() - latents).square().mean(-1) * batch.mask).sum() / batch.mask.sum()
        if not self.geometric_weight:
            return {"loss": per_structure.mean(), "latent_mse": plain}
        geometric = self.geometric(prediction, sample.t, batch)
        return {
            "loss": per_structure.mean() + self.geometric_weight * geometric,
            "latent_mse": plain,
            "geometric": geometric,
        }

    def geometric(
        self, prediction: Float[Tensor, "b n c"], t: Float[Tensor, " b"], batch: AtomBatch
    ) -> Float[Tensor, ""]:
        """GFMDiff's geometric loss of the decoded prediction, weighted by t: early predictions are no structures yet.

        Published training weights it by the signal level α_t too; crystals, whose bonds cross the cell, do not count.
        """
        latents = self.autoencoder.denormalize(prediction.float(), batch.kind)
        decoded = self.autoencoder.decode(latents, batch.mask)
        mask = batch.mask.float()
        per_structure = geometric_loss(
            decoded.positions_nm.float() * ANGSTROM_PER_NM,
            decoded.type_logits.float().softmax(-1),
            mask,
            count_neighbours(batch.positions, batch.numbers, mask),
        )
        return (per_structure * t * (batch.kind == MOLECULE)).mean()

    @torch.no_grad()
    def encode(self, batch: AtomBatch, generator: torch.Generator) -> Float[Tensor, "b n c"]:
        """Normalised sampled latents, zero in padding."""
        posterior = self.autoencoder.encode(batch)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean.device)
        latents = self.autoencoder.normalize(posterior.sample(noise.to(posterior.mean)).float(), batch.kind)
        return latents * batch.mask[..., None]

    def _composition(self, batch: AtomBatch, generator: torch.Generator) -> Float[Tensor, "b 100"] | None:
        if not any(self.tell_formula.values()):
            return None
        chances = torch.tensor([self.tell_formula.get(kind, 0.0) for kind in batch.kind.tolist()])
        told = torch.rand(len(chances), generator=generator) < chances
        return batch.composition * told[:, None].to(batch.kind.device)

    def _drop(self, labels: Int[Tensor, " b"], generator: torch.Generator) -> Int[Tensor, " b"]:
        return drop_labels(labels, NULL, self.label_dropout, generator)
