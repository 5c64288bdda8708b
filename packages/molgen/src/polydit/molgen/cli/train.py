"""`molgen train`: both of ADiT's networks from a set of structures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from polydit.core.cli.config import apply_settings, dotted, effective_options
from polydit.core.cli.options import (
    MAY_DIFFER,
    config_option,
    dry_run_option,
    limit_option,
    out_option,
    output_options,
    overwrite_option,
    set_option,
)
from polydit.core.cli.output import Output
from polydit.core.errors import InputError
from polydit.core.jobs import RunFolder
from polydit.molgen.recipe import Recipe

if TYPE_CHECKING:
    from polydit.molgen.data.structure import Structure

_PRODUCTS = ("autoencoder", "denoiser", "checkpoint", "recipe.json")


@click.command()
@click.option(
    "--data", "paths", multiple=True, required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH",
    help="Training structures: any file or folder that `molgen data inspect` reads; may be repeated.",
)  # fmt: skip
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
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", help="Where to compute.")
@out_option
@overwrite_option
@config_option
@set_option
@limit_option
@dry_run_option
@output_options
@click.pass_context
def train(
    ctx: click.Context,
    /,
    paths: tuple[Path, ...],
    kind: Literal["both", "molecule", "crystal"],
    max_heavy_atoms: int | None,
    device: str,
    out: Path,
    overwrite: bool,
    settings: dict[str, Any],
    limit: int | None,
    dry_run: bool,
    output: Output,
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
    recipe = apply_settings(Recipe(), settings)
    structures = _read(paths, kind, max_heavy_atoms, limit, output)
    if dry_run:
        _print_plan(structures, recipe, output)
        return
    with RunFolder.open(
        out,
        command="molgen train",
        options=effective_options(ctx),
        provenance={"structures": len(structures)},
        overwrite=overwrite,
        free=MAY_DIFFER - {"limit"},
        products=list(_PRODUCTS),
    ):
        checkpoint = _fit(structures, recipe, out, device, output)
    command = f"molgen sample --checkpoint {checkpoint} --out run/"
    output.summary({"checkpoint": str(checkpoint), "next": command}, f"next: {command}", str(checkpoint))


def _read(
    paths: tuple[Path, ...], kind: str, max_heavy_atoms: int | None, limit: int | None, output: Output
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
        output.warn(
            f"{len(rejected)} rows were left out, the first: {rejected[0].source}: {rejected[0].reason}"
        )
    if not structures:
        raise InputError(
            "no structure to train on", where="--data", hint=f"Look with: molgen data inspect {paths[0]}"
        )
    return structures[:limit]


def _too_large(structure: Structure, max_heavy_atoms: int | None) -> bool:
    return (
        structure.kind == "molecule"
        and max_heavy_atoms is not None
        and structure.heavy_atoms > max_heavy_atoms
    )


def _fit(structures: list[Structure], recipe: Recipe, out: Path, device: str, output: Output) -> Path:
    from polydit.molgen.fit import fit

    def tell(stage: str, step: int, steps: int, scalars: dict[str, Any]) -> None:
        output.item({"stage": stage, **scalars})
        output.note(
            f"{stage} {step}/{steps}  loss {scalars['loss']:.4g}  {scalars['seconds_per_step']:.2f} s/step"
        )

    return fit(structures, recipe, out, device=device, progress=tell)


def _print_plan(structures: list[Structure], recipe: Recipe, output: Output) -> None:
    from dataclasses import asdict

    from polydit.molgen.fit import build_autoencoder, build_denoiser

    counts = Counter(structure.kind for structure in structures)
    networks: dict[str, Any] = {"autoencoder": build_autoencoder(recipe), "denoiser": build_denoiser(recipe)}
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    plan = {"dry_run": True, "structures": dict(counts), "parameters": sizes, "recipe": asdict(recipe)}
    lines = [f"structures: {', '.join(f'{count} {kind}s' for kind, count in sorted(counts.items()))}"]
    lines += [f"{name}: {count:,} parameters" for name, count in sizes.items()]
    lines += [f"  {key} = {value}" for key, value in dotted(asdict(recipe))]
    output.summary(plan, *lines)
