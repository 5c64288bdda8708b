"""Make the starter again: data, training, the 16-bit copy that ships, the baseline, and the figures of its card.

    python -m polydit.vstain.starter.recipe [--work DIR]

Each step is a command that goes on where it stopped, so the whole may be killed and started again at any time.
"""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path

import click

from polydit.core.checkpoints.starter import run_command, ship
from polydit.core.cli.config import apply_settings, dotted
from polydit.vstain.recipe import Recipe

HERE = Path(__file__).parent
vstain = partial(run_command, "vstain")
TILES = 2000  # 1,600 to train on, 200 to look at meanwhile, 200 to measure on
CACHE = "output(every=4,order=0,warm_up=1)"  # of the five steps the first and the last are computed
HIDDEN = 736  # hidden units that ship, of 768: what brings the weights below 12 MB


@click.command()
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("starter-vstain"),
    help="Folder for all that is made.",
)
@click.option("--workers", type=click.IntRange(min=1), default=2, help="Processes for the data.")
def main(work: Path, workers: int) -> None:
    """Train the starter of vstain and the baseline, and put the starter into the package."""
    from polydit.vstain.pipeline import StainPipeline

    data, baseline = work / "data", work / "baseline"
    vstain("data", "make", "--num", TILES, "--workers", workers, "--out", data)
    vstain("train", "--data", data, "--config", HERE / "recipe.toml", "--out", work / "train")
    checkpoint = smaller(work / "train", data, work / "slim")
    network = StainPipeline.from_pretrained(checkpoint).network
    ship(checkpoint, HERE, networks={"network": network}, cache=CACHE)
    vstain("train", "--data", data, "--network", "pix2pix", "--out", baseline)
    for stain in ("ck", "cd3"):
        tiles = sorted((data / "test" / "HE").glob(f"{stain}-*.png"))
        run = ("run", *tiles, "--stain", stain, "--no-report", "--overwrite")
        vstain(*run, "--checkpoint", baseline / "checkpoint", "--out", work / f"{stain}-baseline-run")
        for cache in ("auto", "none"):
            vstain(*run, "--cache", cache, "--out", work / f"{stain}-{cache}-run")
            vstain(
                "evaluate", work / f"{stain}-{cache}-run", "--reference", data / "test" / "IHC",
                "--baseline", work / f"{stain}-baseline-run", "--overwrite",
                "--out", work / f"{stain}-{cache}-figures",
            )  # fmt: skip
    click.echo(f"Figures for {HERE / 'card.md'} are in {work}/*-figures.")


def smaller(run: Path, data: Path, out: Path) -> Path:
    """The checkpoint of a training run with fewer hidden units."""
    from polydit.vstain.data.find import find_pairs
    from polydit.vstain.slim import slim

    if out.exists():
        return out
    recipe = apply_settings(Recipe(), dict(dotted(tomllib.loads((HERE / "recipe.toml").read_text()))))
    return slim(run / "checkpoint", find_pairs(data, split="train"), recipe, HIDDEN, out)


if __name__ == "__main__":
    main()
