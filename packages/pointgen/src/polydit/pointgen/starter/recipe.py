"""Make the starter again: data, training, the 16-bit copy that ships, and the figures of its card.

    python -m polydit.pointgen.starter.recipe [--work DIR]

Each step is a command that goes on where it stopped, so the whole may be killed and started again at any time.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from polydit.core.checkpoints.starter import run_command, ship

HERE = Path(__file__).parent
pointgen = partial(run_command, "pointgen")
SHAPES = 2000  # of each category: 1,700 to train on, 200 to measure against, 100 to spare
EVALUATED = 200
TUNING = {  # what follows the training, from its checkpoint: a second, lower fall of the learning rate
    "training.steps": 1700,
    "training.learning_rate": 5e-4,
    "training.muon_learning_rate": 0.01,
    "training.ema": 0.998,
}
STEPS = (0, 1, 2, *range(6, 22, 4), *range(22, 50, 2))  # of 50 that are computed: early ones matter less
CACHE = f"output(order=2,full={'+'.join(map(str, STEPS))}/50)"
HIDDEN = 992  # hidden units that ship, of 1,152: what brings the weights below 12 MB


@click.command()
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("starter-pointgen"),
    help="Folder for all that is made.",
)
@click.option("--workers", type=click.IntRange(min=1), default=2, help="Processes for data and metrics.")
def main(work: Path, workers: int) -> None:
    """Train the starter of pointgen and put it into the package."""
    from polydit.pointgen.pipeline import PointPipeline

    data = work / "data"
    pointgen("data", "make", "--num", SHAPES, "--workers", workers, "--out", data)
    train = ("train", "--data", data, "--config", HERE / "recipe.toml")
    pointgen(*train, "--out", work / "train")
    changes = [word for key, value in TUNING.items() for word in ("--set", f"{key}={value}")]
    pointgen(*train, "--start", work / "train" / "checkpoint", *changes, "--out", work / "tuned")
    checkpoint = smaller(work / "tuned", data, work / "slim")
    network = PointPipeline.from_pretrained(checkpoint).network
    ship(checkpoint, HERE, networks={"network": network}, cache=CACHE)
    for cache in ("auto", "none"):
        samples, figures = work / f"samples-{cache}", work / f"figures-{cache}"
        pointgen(
            "sample", "--num-samples", EVALUATED * 4, "--format", "npy", "--cache", cache, "--no-report",
            "--overwrite", "--out", samples,
        )  # fmt: skip
        pointgen(
            "evaluate", samples, "--reference", data / "val", "--workers", workers, "--overwrite",
            "--out", figures,
        )  # fmt: skip
    click.echo(f"Figures for {HERE / 'card.md'} are in {work}/figures-*.")


def smaller(run: Path, data: Path, out: Path) -> Path:
    """The checkpoint of a training run with fewer hidden units."""
    from polydit.pointgen.cloud import Cloud
    from polydit.pointgen.data.readers import read_clouds
    from polydit.pointgen.slim import recipe_of, slim

    if out.exists():
        return out
    clouds = [cloud for cloud in read_clouds(data, split="train") if isinstance(cloud, Cloud)]
    return slim(run / "checkpoint", clouds, recipe_of(run), HIDDEN, out)


if __name__ == "__main__":
    main()
