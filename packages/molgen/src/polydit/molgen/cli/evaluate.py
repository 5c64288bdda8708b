"""`molgen evaluate`: the field's figures of molecules and crystals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from polydit.core.cli.evaluation import FiguresFolder, exit_for, figures_option, name_rejected, replace_option
from polydit.core.cli.options import config_option, limit_option, output_options, workers_option
from polydit.core.cli.output import Output
from polydit.core.errors import InputError

if TYPE_CHECKING:
    from polydit.molgen.evaluate import Evaluation
    from polydit.molgen.evaluate.crystals import OxidationStates

_FILES = ("summary.json", "molecules.csv", "crystals.csv", "rejected.csv")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--kind", type=click.Choice(["auto", "molecule", "crystal"]), default="auto",
    help="What to evaluate; auto takes both, told apart by the unit cell.",
)  # fmt: skip
@click.option(
    "--train", type=click.Path(exists=True, path_type=Path), multiple=True, metavar="PATH",
    show_default="no novelty",
    help="Training set that novelty is measured against: structures, or a .smi file. May be repeated.",
)  # fmt: skip
@click.option(
    "--oxidation-states", type=click.Choice(["smact14", "icsd24", "pymatgen_sp"]), default="smact14",
    help="SMACT's set of oxidation states; smact14 compares with published figures.",
)  # fmt: skip
@click.option("--posebusters", is_flag=True, help="Also PoseBusters' checks of molecules (some 20 ms each).")
@click.option("--internal-energy", is_flag=True, help="With --posebusters: the energy too (over 1 s each).")
@figures_option(help="Where to write summary.json and a CSV with one row per structure.")
@replace_option
@workers_option
@limit_option(help="At most this many structures.")
@config_option
@output_options
def evaluate(
    paths: Sequence[Path],
    kind: Literal["auto", "molecule", "crystal"],
    train: Sequence[Path],
    oxidation_states: OxidationStates,
    posebusters: bool,
    internal_energy: bool,
    out: Path | None,
    overwrite: bool,
    workers: int,
    limit: int | None,
    output: Output,
) -> None:
    """Measure the structures in PATHS: files, folders, or run folders of "molgen sample".

    \b
    molgen evaluate run/
    molgen evaluate run/ --train gdb9.sdf --out figures/
    molgen evaluate samples.sdf crystals/*.cif --workers 4 --json

    Every figure comes with its count, its 95 % interval and the name of its method. Exit code 3 means that
    some rows were no structure; they are named on stderr and counted in no other figure.
    """
    from polydit.molgen.evaluate import evaluate_structures
    from polydit.molgen.evaluate.inputs import read_inputs, read_training

    if internal_energy and not posebusters:
        raise InputError("--internal-energy is one of PoseBusters' checks", hint="Add --posebusters.")
    folder = FiguresFolder(out, _FILES)
    folder.check(overwrite=overwrite)
    structures = list(read_inputs(paths, kind=None if kind == "auto" else kind, limit=limit))
    if not structures and limit != 0:
        raise InputError("there is no structure to evaluate", where=", ".join(map(str, paths)))
    with folder.held(), output.progress(len(structures), what="evaluate", unit="structure") as progress:
        evaluation = evaluate_structures(
            structures,
            training=read_training(train) if train else None,
            oxidation_states=oxidation_states,
            posebusters=posebusters,
            internal_energy=internal_energy,
            workers=workers,
            on_structure=progress.update,
        )
        folder.write(evaluation.files())
    name_rejected(evaluation.rejected, output)
    if out is not None:
        output.note(f"Written to {out}")
    _print(evaluation, output)
    exit_for(evaluation.rejected)


def _print(evaluation: Evaluation, output: Output) -> None:
    if output.json:
        output.summary({"figures": evaluation.to_json(), "rejected": len(evaluation.rejected)})
        return
    output.table(
        [
            {
                "figure": figure.name,
                "value": figure.percent(),
                "95 % interval": figure.percent_interval(),
                "count": f"{figure.numerator}/{figure.denominator}",
                "method": figure.method,
            }
            for figure in evaluation.figures
        ]
    )
