"""From planned samples to files in a run folder: the work of `molgen sample`, without its command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from polydit.core.errors import InputError
from polydit.core.jobs import ItemFailure, ItemResult
from polydit.core.sampling.cache import Cache, CacheReport
from polydit.molgen.bonds import edm_stable_atoms
from polydit.molgen.data.interop import to_pymatgen
from polydit.molgen.data.structure import Rejected, Structure
from polydit.molgen.data.writers import Format, render
from polydit.molgen.pipeline import SampleRequest
from polydit.molgen.sampling_plan import Kind, PlannedSample

if TYPE_CHECKING:
    from polydit.molgen.pipeline import MolgenPipeline

_FARTHEST = 1e4  # Å; beyond, a coordinate does not fit into the columns of an SDF, nor into any sense


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """The work function of `run_batches`: a batch of planned samples in, files and measures out.

    Args:
        pipeline: Makes the structures.
        kind: "molecule" or "crystal".
        formats: One file per format and structure.
        num_steps: Network calls per sample.
        guidance_scale: 1 = no guidance, 0 = without labels.
        cache: Saves network calls; None = every step is computed.
        on_cache: Told what the cache did, after each batch.
        spacegroup: To ask for, 1..230; 0 = none.
        model: Name of the checkpoint, written into the files beside the seed.
        on_step: Told (calls done, calls in all) within a batch.
    """

    pipeline: MolgenPipeline
    kind: Kind
    formats: Sequence[Format]
    num_steps: int
    guidance_scale: float
    cache: Cache | None = None
    on_cache: Callable[[CacheReport], object] | None = None
    spacegroup: int = 0
    model: str = ""
    on_step: Callable[[int, int], None] | None = None

    def __call__(self, batch: Sequence[PlannedSample]) -> list[ItemResult | ItemFailure]:
        results = self.pipeline(
            [self._request(sample) for sample in batch],
            num_steps=self.num_steps,
            guidance_scale=self.guidance_scale,
            cache=self.cache,
            on_cache=self.on_cache,
            on_step=self.on_step,
        )
        return [self._outcome(sample, result) for sample, result in zip(batch, results, strict=True)]

    def _request(self, sample: PlannedSample) -> SampleRequest:
        return SampleRequest(
            id=sample.id,
            kind=self.kind,
            num_atoms=sample.num_atoms,
            seed=sample.seed,
            spacegroup=self.spacegroup,
            formula=sample.formula,
        )

    def _outcome(self, sample: PlannedSample, result: Structure | Rejected) -> ItemResult | ItemFailure:
        asked: dict[str, Any] = {"num_atoms": sample.num_atoms}
        if sample.formula:
            asked["asked_formula"] = sample.formula
        common: dict[str, Any] = {"id": sample.id, "index": sample.index, "seed": sample.seed}
        if isinstance(result, Rejected):
            return ItemFailure(**common, error="AbsurdStructure", message=result.reason, measures=asked)
        if (farthest := float(np.abs(result.positions).max())) > _FARTHEST:
            message = f"an atom is {farthest:.3g} Å from the origin"
            return ItemFailure(**common, error="AbsurdStructure", message=message, measures=asked)
        structure = replace(result, properties={**result.properties, "model": self.model})
        try:
            files = {f".{format}": render(structure, format).encode() for format in self.formats}
            return ItemResult(**common, files=files, measures={**asked, **measures(structure)})
        except (
            InputError,
            ValueError,
            RuntimeError,
        ) as error:  # as rdkit, ase and pymatgen refuse one structure
            return ItemFailure(**common, error=type(error).__name__, message=str(error), measures=asked)


def measures(structure: Structure) -> dict[str, Any]:
    """What is cheap to know of a structure.

    Molecules: `edm_stable`, every atom has its valence by EDM's bond lengths. Crystals: `min_distance` in Å
    between different sites under periodic boundaries (None for a single site), `volume` of the cell in Å³.
    """
    common: dict[str, Any] = {"num_atoms": structure.num_atoms, "formula": structure.formula}
    if structure.cell is None:
        return common | {"edm_stable": bool(edm_stable_atoms(structure).all())}
    sites = to_pymatgen(structure).distance_matrix[np.triu_indices(structure.num_atoms, k=1)]
    return common | {
        "min_distance": round(float(sites.min()), 4) if sites.size else None,
        "volume": round(abs(float(np.linalg.det(structure.cell))), 4),
    }
