"""Make the starter again: data, training, the 16-bit copy that ships, and the figures of its card.

    python -m polydit.molgen.starter.recipe [--perov-5 val.csv] [--work DIR]

Each step is a command that goes on where it stopped, so the whole may be killed and started again at any time.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from polydit.core.checkpoints.starter import run_command, ship

HERE = Path(__file__).parent
molgen = partial(run_command, "molgen")
PARTS = ("autoencoder", "denoiser")
EVALUATED = {"molecule": 1000, "crystal": 500}


@click.command()
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("starter-molgen"),
    help="Folder for all that is made.",
)
@click.option(
    "--perov-5", "perov", type=click.Path(exists=True, path_type=Path), default=None,
    help="perov_5/val.csv of github.com/txie-93/cdvae (MIT): 3,787 perovskites beside the generated prototypes.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), default=2, help="Processes for making data.")
def main(work: Path, perov: Path | None, workers: int) -> None:
    """Train the starter of molgen and put it into the package."""
    from polydit.molgen.pipeline import MolgenPipeline

    data = work / "data"
    if not (data / "data.json").exists():
        molgen("data", "make", "--out", data, "--conformers", 3, "--estimated", "--workers", workers)
    sources = [data, *([perov] if perov else [])]
    paths = [part for source in sources for part in ("--data", source)]
    molgen("train", *paths, "--config", HERE / "recipe.toml", "--out", work / "train")
    checkpoint = work / "train" / "checkpoint"
    pipeline = MolgenPipeline.from_pretrained(checkpoint)
    ship(checkpoint, HERE, networks={name: getattr(pipeline, name) for name in PARTS})
    for kind, count in EVALUATED.items():
        run = work / f"{kind}s"
        molgen("sample", "--kind", kind, "--num-samples", count, "--overwrite", "--no-report", "--out", run)
        molgen(
            "evaluate",
            run,
            *(part for source in sources for part in ("--train", source)),
            "--out",
            run / "figures",
        )
    click.echo(f"Figures for {HERE / 'card.md'} are in {work}/*/figures.")


if __name__ == "__main__":
    main()
