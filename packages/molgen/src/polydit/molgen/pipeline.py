"""Requests in, structures out: the generator that the command line and Python share.

    >>> pipe = MolgenPipeline.from_pretrained("path/to/checkpoint")
    >>> requests = [SampleRequest(id="a", kind="molecule", num_atoms=9, seed=1)]
    >>> structures = pipe(requests)

Shapes: b structures, n atom slots, c latent channels, u distinct conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from ase.geometry import cellpar_to_cell
from diffusers import FlowMatchEulerDiscreteScheduler
from jaxtyping import Bool, Float
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.nn.patterns import padding_of
from polydit.core.pipeline import Pipeline
from polydit.core.sampling.cache import Cache, CacheReport, Clock, cached
from polydit.core.sampling.cache.named import AUTO, NONE
from polydit.core.sampling.guidance import guide
from polydit.core.sampling.loop import denoise
from polydit.core.sampling.modulation import ModulationSchedule
from polydit.molgen.batch import KIND_LABELS, MAX_ELEMENTS
from polydit.molgen.data.structure import NUMBERS, Rejected, Structure
from polydit.molgen.formulas import parse_formula
from polydit.molgen.model import NULL, AtomAutoencoder, DecodedAtoms, LatentDiT
from polydit.molgen.train import ANGSTROM_PER_NM, centred

FIRST_TIME = 0.01  # ADiT's time grid runs from here to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRequest:
    """One structure to generate.

    Args:
        id: Name of the result.
        kind: "molecule" or "crystal".
        num_atoms: Number of atoms.
        seed: Seed of its noise; equal seeds give equal noise in any batch.
        spacegroup: Space group to ask for, 1..230; 0 = none.
        formula: Formula to ask for, of `num_atoms` atoms, such as "C4H8O2"; empty = any. The network is told it and may
            still make another.

    Raises:
        InputError: The formula has another number of atoms.
    """

    id: str
    kind: Literal["molecule", "crystal"]
    num_atoms: int
    seed: int
    spacegroup: int = 0
    formula: str = ""

    def __post_init__(self) -> None:
        if self.formula and (count := sum(parse_formula(self.formula).values())) != self.num_atoms:
            raise InputError(f"{self.formula} has {count} atoms, not {self.num_atoms}", where=self.id)

    def composition(self) -> Float[Tensor, " 100"]:
        """Atoms of each element by atomic number; zeros without a formula."""
        counts = torch.zeros(MAX_ELEMENTS)
        for symbol, count in parse_formula(self.formula).items() if self.formula else ():
            counts[NUMBERS[symbol]] = count
        return counts


def flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Euler steps on the straight path, as ADiT takes them."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)


class MolgenPipeline(Pipeline):
    """ADiT: latent DiT and decoder.

    Args:
        autoencoder: Trained autoencoder.
        denoiser: Trained latent DiT.
        scheduler: A flow-matching scheduler of diffusers that accepts `sigmas`.
        size_histograms: Atoms per structure in the training data, {kind: {"9": count}}.
        elements: Atoms by element in the training data, {kind: {"C": count}}.
        formulas: Molecules by formula in the training data, {"C4H8O2": count}; empty if the denoiser is not told any.
        num_steps: Default number of network calls per sample.
        guidance_scale: Default guidance scale; 1 = none.
        self_condition: Whether the denoiser was trained to see its last prediction. Published: True.
        stochastic: Draw new noise in every step instead of keeping the first. Published: False.
        centred_prior: Whether noise has its mean over atoms subtracted. Published: True.
        cache: Default cache of the denoiser, such as "newton(every=4)".
    """

    components_by_name = {  # noqa: RUF012  the names are fixed by diffusers' folder layout
        "autoencoder": AtomAutoencoder,
        "denoiser": LatentDiT,
        "scheduler": FlowMatchEulerDiscreteScheduler,
    }

    def __init__(
        self,
        autoencoder: AtomAutoencoder,
        denoiser: LatentDiT,
        scheduler: FlowMatchEulerDiscreteScheduler,
        size_histograms: dict[str, dict[str, int]] | None = None,
        elements: dict[str, dict[str, int]] | None = None,
        num_steps: int = 100,
        guidance_scale: float = 2.0,
        self_condition: bool = True,
        stochastic: bool = False,
        centred_prior: bool = True,
        formulas: dict[str, int] | None = None,
        cache: str = NONE,
    ) -> None:
        super().__init__()
        self.register_modules(autoencoder=autoencoder, denoiser=denoiser, scheduler=scheduler)
        self.register_to_config(
            size_histograms=size_histograms or {},
            elements=elements or {},
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            self_condition=self_condition,
            stochastic=stochastic,
            centred_prior=centred_prior,
            formulas=formulas or {},
            cache=cache,
        )

    @torch.no_grad()
    def __call__(
        self,
        requests: Sequence[SampleRequest],
        *,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        cache: str | Cache | None = AUTO,
        on_cache: Callable[[CacheReport], object] | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[Structure | Rejected]:
        """Generate one structure per request, in their order. Best when the requests have similar sizes.

        Numbers that describe no structure (say, a negative lattice length) come back as `Rejected`.

        Args:
            requests: What to generate; any mixture of kinds and sizes.
            num_steps: Network calls per sample (guidance doubles each), at least 2; None = the checkpoint's default.
            guidance_scale: 1 = no guidance, 0 = without labels; None = the checkpoint's default.
            cache: Steps of the denoiser that are forecast: a `Cache`, or its name such as "newton(every=4)"; "auto" =
                the checkpoint's, None = none.
            on_cache: Told what the cache did.
            on_step: Told (calls done, calls in all).

        Raises:
            InputError: If `num_steps` is below 2, or there is no such cache.
        """
        if not requests:
            return []
        steps = self.config.num_steps if num_steps is None else num_steps
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        if steps < 2:
            raise InputError(f"{steps} steps are too few", where="num_steps", expected="2 or more")
        sizes = torch.tensor([r.num_atoms for r in requests])
        mask = padding_of(sizes, int(sizes.max())).to(self.device)
        chosen = self.chosen_cache(cache, steps)
        latents = self.generate_latents(
            requests, mask, steps, scale, on_step, cache=chosen, on_cache=on_cache
        )
        kinds = torch.tensor([KIND_LABELS[r.kind] for r in requests], device=self.device)
        latents = self.autoencoder.denormalize(latents, kinds)
        decoded = self.autoencoder.decode(latents.to(self.autoencoder.dtype), mask)
        return to_structures(requests, decoded)

    def generate_latents(
        self,
        requests: Sequence[SampleRequest],
        mask: Bool[Tensor, "b n"],
        num_steps: int,
        guidance_scale: float,
        on_step: Callable[[int, int], None] | None = None,
        *,
        cache: str | Cache | None = None,
        on_cache: Callable[[CacheReport], object] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Clean latents in float32: `num_steps` calls on the grid t = 0.01 .. 1, the last prediction is the sample."""
        prior = Prior(
            requests,
            mask.shape[1],
            self.denoiser.config.latent_channels,
            self.device,
            centre=self.config.centred_prior,
        )
        sigmas = (1.0 - np.linspace(FIRST_TIME, 1.0, num_steps)).tolist()
        scheduler = deepcopy(self.scheduler)  # it counts steps: samplings in two threads must not share it
        scheduler.set_timesteps(sigmas=sigmas[:-1], device=self.device)
        calls = torch.cat(
            [scheduler.timesteps, scheduler.timesteps.new_zeros(1)]
        )  # the last gives the sample
        predict = _GuidedDenoiser(self.denoiser, requests, mask, guidance_scale, _times(calls))
        with cached(self.denoiser, cache, Clock.flow(sigmas), on_report=on_cache):
            return denoise(
                predict,
                prior(),
                scheduler,
                prediction="data",
                self_condition=self.config.self_condition,
                finish_with_prediction=True,
                fresh_noise=prior if self.config.stochastic else None,
                on_step=on_step,
            )


class Prior:
    """Noise for a batch, each item's from its own generator: the same for an item in any batch.

    Every call draws the next noise, zero in padding and, with `centre`, mean-free over each item's atoms. The published
    code subtracts the mean over padding too; then an item's noise would depend on its batch.

    Without noise on its mean a structure's mean latent is never in doubt in training, so a network learns to trust it;
    in sampling it is whatever the first predictions made of it. The starter is trained and sampled without `centre`.
    """

    def __init__(
        self,
        requests: Sequence[SampleRequest],
        slots: int,
        channels: int,
        device: torch.device,
        *,
        centre: bool = True,
    ) -> None:
        self.sizes = [request.num_atoms for request in requests]
        self.generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]
        self.mask = padding_of(torch.tensor(self.sizes), slots)
        self.channels, self.device, self.centre = channels, device, centre

    def __call__(self) -> Float[Tensor, "b n c"]:
        noise = torch.zeros(*self.mask.shape, self.channels)
        for row, (size, generator) in enumerate(zip(self.sizes, self.generators, strict=True)):
            noise[row, :size] = torch.randn(size, self.channels, generator=generator)
        return (centred(noise, self.mask) if self.centre else noise).to(self.device)


def _times(timesteps: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """What the denoiser is told: 1 = data, where diffusers counts thousandths of noise."""
    return (1.0 - timesteps / 1000.0).float()


class _GuidedDenoiser:
    """The denoiser with labels, padding and guidance bound: one batch per call, the modulation of all made before."""

    def __init__(
        self,
        denoiser: LatentDiT,
        requests: Sequence[SampleRequest],
        mask: Bool[Tensor, "b n"],
        scale: float,
        times: Float[Tensor, " s"],
    ) -> None:
        labels = torch.tensor([(KIND_LABELS[r.kind], r.spacegroup) for r in requests], device=mask.device)
        null = torch.full_like(labels, NULL)
        # scale 1 needs only the conditional half, scale 0 only the unconditional one
        self.doubled = scale not in (0.0, 1.0)
        self.scale = scale
        rows = torch.cat([labels, null]) if self.doubled else (null if scale == 0.0 else labels)
        conditions, row_of_item = rows.unique(dim=0, return_inverse=True)
        self.rows, labelled = len(rows), conditions.unbind(1)
        self.modulation = iter(
            ModulationSchedule(denoiser.modulate, times.to(mask.device), labelled, row_of_item)
        )
        self.composition = self._compositions(requests, mask.device)
        self.mask = None if bool(mask.all()) else (torch.cat([mask, mask]) if self.doubled else mask)
        self.denoiser = denoiser

    def __call__(self, x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        prediction = self.denoiser(
            self._inputs(x),
            timestep=_times(timestep).to(x.device).expand(self.rows),
            mask=self.mask,
            self_condition=None if previous is None else self._inputs(previous),
            modulation=next(self.modulation),
            composition=self.composition,
        ).float()
        if not self.doubled:
            return prediction
        conditional, unconditional = prediction.chunk(2)
        return guide(conditional, unconditional, self.scale)

    def _compositions(
        self, requests: Sequence[SampleRequest], device: torch.device
    ) -> Float[Tensor, "rows 100"] | None:
        """What each row is told of its formula; the unconditional half is told nothing."""
        if not any(request.formula for request in requests):
            return None
        told = torch.stack([request.composition() for request in requests]).to(device)
        nothing = torch.zeros_like(told)
        return torch.cat([told, nothing]) if self.doubled else (nothing if self.scale == 0.0 else told)

    def _inputs(self, x: Tensor) -> Tensor:
        return torch.cat([x, x]) if self.doubled else x


def to_structures(requests: Sequence[SampleRequest], decoded: DecodedAtoms) -> list[Structure | Rejected]:
    """Decoded numbers as structures; numbers that describe none are rejected with a reason, nothing is mended."""
    types = decoded.type_logits.float().argmax(-1).clamp(min=1).cpu().numpy()
    positions = (decoded.positions_nm.double() * ANGSTROM_PER_NM).cpu().numpy()
    frac = decoded.frac_coords.double().cpu().numpy()
    lengths, angles = decoded.lengths_scaled.double().cpu().numpy(), decoded.angles.double().cpu().numpy()
    results: list[Structure | Rejected] = []
    for i, request in enumerate(requests):
        n = request.num_atoms
        common: dict[str, Any] = {
            "id": request.id,
            "numbers": types[i, :n],
            "properties": {"seed": request.seed},
        }
        try:
            if request.kind == "molecule":
                results.append(Structure(positions=positions[i, :n] - positions[i, :n].mean(0), **common))
            else:
                cell = _cell(lengths[i] * n ** (1 / 3), angles[i])
                common["spacegroup"] = request.spacegroup
                results.append(Structure(positions=(frac[i, :n] % 1.0) @ cell, cell=cell, **common))
        except InputError as error:
            results.append(Rejected(source=request.id, reason=error.problem))
    return results


def _cell(lengths: Float[np.ndarray, " 3"], angles: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """Rows = lattice vectors, the first along x, the second in the xy plane; from Å and radians."""
    cos = np.cos(angles)
    volume_squared = 1.0 - cos @ cos + 2.0 * cos.prod()
    if not (lengths > 0.0).all() or not volume_squared > 0.0:
        raise InputError(
            f"no cell has lengths {np.round(lengths, 2)} Å and angles {np.round(np.rad2deg(angles), 1)}°"
        )
    return np.array(cellpar_to_cell([*lengths, *np.rad2deg(angles)]))
