"""Make the starter again: data, training, the 16-bit copy that ships, and the figures of its card.

    python -m polydit.molgen.starter.recipe [--perov-5 val.csv] [--work DIR]

Each step is a command that goes on where it stopped, so the whole may be killed and started again at any time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click

HERE = Path(__file__).parent
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
    data = work / "data"
    if not (data / "data.json").exists():
        molgen("data", "make", "--out", data, "--conformers", 3, "--estimated", "--workers", workers)
    sources = [data, *([perov] if perov else [])]
    paths = [part for source in sources for part in ("--data", source)]
    molgen("train", *paths, "--config", HERE / "recipe.toml", "--out", work / "train")
    ship(work / "train" / "checkpoint", HERE)
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


def molgen(*arguments: object) -> None:
    """Run a command of this package as a user would; 3 means that some items failed, which the figures count."""
    program = Path(sys.executable).parent / "molgen"
    done = subprocess.run([program, *map(str, arguments)], check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.returncode)


def ship(checkpoint: Path, folder: Path) -> None:
    """Copy a checkpoint with its weights in 16 bits, all that the package needs and nothing of the training."""
    from polydit.core.checkpoints.weights import save_half
    from polydit.molgen.pipeline import MolgenPipeline

    pipeline = MolgenPipeline.from_pretrained(checkpoint)
    for part in PARTS:
        save_half(getattr(pipeline, part), folder / part)
    shutil.copytree(checkpoint / "scheduler", folder / "scheduler", dirs_exist_ok=True)
    index = json.loads((checkpoint / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
