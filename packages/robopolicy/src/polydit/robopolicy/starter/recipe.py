"""Make the starter again: demonstrations, training, the 16-bit copy that ships, and the figures of its card.

    python -m polydit.robopolicy.starter.recipe [--work DIR]

Each step is a command that goes on where it stopped, so the whole may be killed and started again at any time.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from polydit.core.checkpoints.starter import run_command, ship

HERE = Path(__file__).parent
robopolicy = partial(run_command, "robopolicy")
ENV, EPISODES, NOISE, AFTER_SUCCESS = "metaworld", 40, 0.25, 8
FILES = (
    "normalizer.json",
    "normalizer.safetensors",
    "instructions.json",
    "instructions.safetensors",
)
CACHE = "output(every=4,order=0,warm_up=1)"  # the first and the last of a chunk's five steps are computed
LAYOUTS = 50  # of each task that the policy is measured on; demonstrations use others
TASKS = (
    "button-press-topdown-v3", "button-press-topdown-wall-v3", "button-press-v3", "button-press-wall-v3",
    "coffee-button-v3", "coffee-pull-v3", "coffee-push-v3", "dial-turn-v3", "door-close-v3", "door-lock-v3",
    "door-open-v3", "door-unlock-v3", "drawer-close-v3", "drawer-open-v3", "faucet-close-v3", "faucet-open-v3",
    "handle-press-side-v3", "handle-press-v3", "pick-place-v3", "plate-slide-back-side-v3", "plate-slide-back-v3",
    "plate-slide-side-v3", "plate-slide-v3", "push-v3", "push-wall-v3", "reach-v3", "reach-wall-v3", "sweep-v3",
    "window-close-v3", "window-open-v3",
)  # fmt: skip


@click.command()
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("starter-robopolicy"),
    help="Folder for all that is made.",
)
@click.option("--workers", type=click.IntRange(min=1), default=2, help="Processes for simulation.")
def main(work: Path, workers: int) -> None:
    """Train the starter of robopolicy and put it into the package."""
    from polydit.robopolicy.policy import RobotPolicy

    data, policy = work / "data", work / "policy"
    tasks = [part for task in TASKS for part in ("--task", task)]
    if not (data / "meta" / "info.json").exists():
        recorded = ("--episodes", EPISODES, "--noise", NOISE, "--after-success", AFTER_SUCCESS)
        robopolicy("data", "make", "--env", ENV, *tasks, *recorded, "--workers", workers, "--out", data)
    robopolicy("train", "--data", data, "--config", HERE / "recipe.toml", "--out", policy)
    network = RobotPolicy.from_pretrained(policy).network
    ship(policy, HERE, networks={"network": network}, kept=FILES, cache=CACHE)
    evaluate = ("evaluate", "--env", ENV, *tasks, "--episodes", LAYOUTS, "--workers", workers)
    for cache in ("auto", "none"):
        robopolicy(*evaluate, "--cache", cache, "--out", work / f"figures-{cache}")
    click.echo(f"Figures for {HERE / 'card.md'} are in {work}/figures-*.")


if __name__ == "__main__":
    main()
