"""`molgen train`: both of ADiT's networks from a set of structures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from polydit.core.cli.config import apply_settings
from polydit.core.cli.training import Tell, TrainingCall, TrainingJob, data_option, training_options
from polydit.core.errors import InputError
from polydit.molgen.recipe import Recipe

if TYPE_CHECKING:
    from polydit.molgen.data.structure import Structure


@dataclass(frozen=True, kw_only=True)
class _Training(TrainingJob[Recipe]):
    command = "molgen train"
    next_command = "molgen sample"
    products = ("autoencoder", "denoiser", "checkpoint", "recipe.json")

    structures: list[Structure]

    def provenance(self) -> dict[str, Any]:
        return {"structures": len(self.structures)}

    def fit(self, tell: Tell) -> Path:
        from polydit.molgen.fit import fit

        def progress(stage: str, step: int, steps: int, scalars: dict[str, Any]) -> None:
            tell(step, steps, scalars, stage=stage)

        return fit(self.structures, self.recipe, self.call.out, device=self.call.device, progress=progress)

    def plan(self) -> tuple[dict[str, Any], list[str]]:
        from polydit.molgen.fit import build_autoencoder, build_denoiser

        counts = Counter(structure.kind for structure in self.structures)
        sizes = {
            "autoencoder": build_autoencoder(self.recipe).num_parameters(),
            "denoiser": build_denoiser(self.recipe).num_parameters(),
        }
        kinds = ", ".join(f"{count} {kind}s" for kind, count in sorted(counts.items()))
        lines = [f"structures: {kinds}", *(f"{name}: {count:,} parameters" for name, count in sizes.items())]
        return {"structures": dict(counts), "parameters": sizes}, lines


@click.command()
@data_option(
    multiple=True,
    help="Training structures: any file or folder that `molgen data inspect` reads; may be repeated.",
)
@click.option(
    "--kind",
    type=click.Choice(["both", "molecule", "crystal"]),
    default="both",
    help="Which structures to use.",
)
@click.option(
    "--max-heavy-atoms", type=click.IntRange(min=1), default=None, show_default="no limit",
    help="Leave out molecules with more atoms other than hydrogen.",
)  # fmt: skip
@training_options(things="structures")
def train(
    data: tuple[Path, ...],
    kind: Literal["both", "molecule", "crystal"],
    max_heavy_atoms: int | None,
    call: TrainingCall,
) -> None:
    """Train an autoencoder, then a denoiser on its latents.

    \b
    molgen data make --out ds/ && molgen train --data ds/ --out model/
    molgen train --data qm9.sdf --data mp20.csv --config recipe.toml --out model/
    molgen train --data ds/ --out model/ --set denoiser.width=384 --set denoiser_training.steps=50000
    molgen sample --checkpoint model/checkpoint --out run/

    Every setting of the recipe is a key of the TOML file or of --set; `molgen train --dry-run` shows them all.
    The same command run again goes on where it stopped, to the same losses.
    """
    recipe = apply_settings(Recipe(), call.settings)
    _Training(call=call, recipe=recipe, structures=_read(data, kind, max_heavy_atoms, call)).run()


def _read(
    paths: tuple[Path, ...], kind: str, max_heavy_atoms: int | None, call: TrainingCall
) -> list[Structure]:
    from polydit.molgen.data.readers import read_structures
    from polydit.molgen.data.structure import Rejected

    structures: list[Structure] = []
    rejected: list[Rejected] = []
    for path in paths:
        for entry in read_structures(path):
            if isinstance(entry, Rejected):
                rejected.append(entry)
            elif kind in ("both", entry.kind) and not _too_large(entry, max_heavy_atoms):
                structures.append(entry)
    if rejected:
        call.output.warn(
            f"{len(rejected)} rows were left out, the first: {rejected[0].source}: {rejected[0].reason}"
        )
    if not structures:
        raise InputError(
            "no structure to train on", where="--data", hint=f"Look with: molgen data inspect {paths[0]}"
        )
    return structures[: call.limit]


def _too_large(structure: Structure, max_heavy_atoms: int | None) -> bool:
    return (
        structure.kind == "molecule"
        and max_heavy_atoms is not None
        and structure.heavy_atoms > max_heavy_atoms
    )
