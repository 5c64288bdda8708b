"""`robopolicy train`: a policy from demonstrations."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polydit.core.cli.config import apply_settings, dotted, effective_options
from polydit.core.cli.options import (
    MAY_DIFFER,
    checkpoint_option,
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
from polydit.robopolicy.recipe import Recipe

if TYPE_CHECKING:
    from polydit.robopolicy.data.readers import Dataset
    from polydit.robopolicy.fit import Prepared
    from polydit.robopolicy.language import Instructions
    from polydit.robopolicy.policy import RobotPolicy

_PRODUCTS = (
    "network", "normalizer.json", "normalizer.safetensors", "instructions.json", "instructions.safetensors",
    "model_index.json", "recipe.json", "arm.toml", "training", "saving.tmp",
)  # fmt: skip
_OF_TRAINING = {  # settings that can change from one training of a network to the next
    "rdt.drop_conditions", "rdt.state_noise", "mode.goal_dropout", "mode.balance_weight", "pad.action_weight",
}  # fmt: skip


@click.command()
@click.option(
    "--data", "path", required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH",
    help="Demonstrations: any data set that `robopolicy data inspect` reads.",
)  # fmt: skip
@click.option(
    "--model", type=click.Choice(["rdt", "mode", "pad"]), default=None, show_default="the recipe's: mode",
    help="The system to train.",
)  # fmt: skip
@click.option(
    "--language", type=click.Path(exists=True, path_type=Path), default=None, show_default="fixed vectors",
    metavar="PATH",
    help="Precomputed embeddings of the instructions: safetensors, RDT's .pt, or a folder of them.",
)  # fmt: skip
@checkpoint_option(
    show_default="a new policy", help="A policy to go on from: a listed name, a folder or a hub address."
)
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", help="Where to compute.")
@out_option
@overwrite_option
@config_option
@set_option
@limit_option(help="At most this many episodes.")
@dry_run_option
@output_options
@click.pass_context
def train(
    ctx: click.Context,
    /,
    path: Path,
    model: str | None,
    language: Path | None,
    checkpoint: str | None,
    device: str,
    out: Path,
    overwrite: bool,
    settings: dict[str, Any],
    limit: int | None,
    dry_run: bool,
    output: Output,
) -> None:
    """Train a policy on demonstrations.

    \b
    robopolicy data make --env metaworld --task drawer-open-v3 --episodes 50 --out demos/
    robopolicy train --model mode --data demos/ --out policy/
    robopolicy train --model rdt --data demos/ --out policy/ --set network.width=256 --set training.steps=5000
    robopolicy train --model pad --data demos/ --out policy/ --set 'cameras=["corner3"]'
    robopolicy evaluate --checkpoint policy/ --env metaworld --task drawer-open-v3 --out run/

    Every setting of the recipe is a key of the TOML file or of --set; `robopolicy train --dry-run` shows them all.
    The same command run again goes on where it stopped, to the same losses.
    """
    recipe = _recipe(model, settings)
    dataset = _read(path, limit)
    found, start = _policy(checkpoint)
    if start is not None:
        _refuse_other_network(start.config.model, model, settings)
        recipe = replace(recipe, model=start.config.model)
    prepared = _prepare(dataset, recipe, start, language, output)
    if dry_run:
        _print_plan(prepared, recipe, output)
        return
    with RunFolder.open(
        out,
        command="robopolicy train",
        options=effective_options(ctx),
        provenance={"episodes": len(prepared.data.windows.lengths), **found},
        overwrite=overwrite,
        free=MAY_DIFFER - {"limit"},
        products=list(_PRODUCTS),
    ):
        _run(prepared, recipe, out, device, output)
    command = f"robopolicy evaluate --checkpoint {out} --out run/"
    output.summary({"checkpoint": str(out), "next": command}, f"next: {command}", str(out))


def _recipe(model: str | None, settings: dict[str, Any]) -> Recipe:
    recipe = apply_settings(Recipe(), settings)
    if model is None:
        return recipe
    if settings.get("model", model) != model:
        problem = f"--model {model} and the recipe's model = {settings['model']!r} contradict each other"
        raise InputError(problem, hint="Leave one of them out")
    return apply_settings(recipe, {"model": model})


def _read(path: Path, limit: int | None) -> Dataset:
    from polydit.robopolicy.data.readers import read_dataset

    dataset = read_dataset(path)
    if limit is None:
        return dataset
    from polydit.robopolicy.fit import FirstEpisodes

    return FirstEpisodes(dataset, limit)


def _policy(checkpoint: str | None) -> tuple[dict[str, Any], RobotPolicy | None]:
    """What is recorded of a policy to go on from, and that policy."""
    if checkpoint is None:
        return {}, None
    from polydit.robopolicy.checkpoint import Checkpoint
    from polydit.robopolicy.policy import RobotPolicy

    found = Checkpoint.find(checkpoint)
    return {"checkpoint": found.provenance()}, RobotPolicy.from_pretrained(found.path)


def _refuse_other_network(known: str, model: str | None, settings: dict[str, Any]) -> None:
    """A policy to go on from keeps its network and scales, so nobody may believe to have changed them."""
    if model not in (None, known):
        raise InputError(f"the policy to go on from is of the model {known}", where=f"--model {model}")
    for key in settings:
        if not key.startswith("training.") and key not in _OF_TRAINING:
            raise InputError(
                f"the setting {key} is the policy's own",
                expected=f"training.* or {', '.join(sorted(_OF_TRAINING))}",
            )


def _prepare(
    dataset: Dataset, recipe: Recipe, start: RobotPolicy | None, language: Path | None, output: Output
) -> Prepared:
    from polydit.robopolicy.fit import prepare

    prepared = prepare(dataset, recipe, start=start, language=_embeddings(language, start))
    if rejected := prepared.data.windows.rejected:
        output.warn(f"{len(rejected)} episodes were left out, the first: {rejected[0][1]}")
    return prepared


def _embeddings(path: Path | None, start: RobotPolicy | None) -> Instructions | None:
    if path is None:
        return None
    if start is not None:
        raise InputError(
            "a policy to go on from keeps its instructions", where="--language", hint="Leave it out"
        )
    from polydit.robopolicy.language import Instructions

    return Instructions.read(path)


def _run(prepared: Prepared, recipe: Recipe, out: Path, device: str, output: Output) -> None:
    from polydit.robopolicy.fit import run

    def tell(step: int, steps: int, scalars: dict[str, Any]) -> None:
        output.item(scalars)
        output.note(f"{step}/{steps}  loss {scalars['loss']:.4g}  {scalars['seconds_per_step']:.2f} s/step")

    run(prepared, recipe, out, device=device, progress=tell)


def _print_plan(prepared: Prepared, recipe: Recipe, output: Output) -> None:
    windows, policy = prepared.data.windows, prepared.policy
    facts = {
        "episodes": len(windows.lengths),
        "frames": len(windows),
        "tasks": list(dict.fromkeys(windows.tasks)),
        "state": windows.states.shape[1],
        "action": windows.actions.shape[1],
        "fps": windows.fps,
        "parameters": sum(p.numel() for p in policy.network.parameters()),
        "instructions": policy.instructions.kind,
    }
    lines = [f"{facts['episodes']} episodes, {facts['frames']:,} frames at {facts['fps']:g} per second"]
    lines += [f"state: {facts['state']} numbers, action: {facts['action']}"]
    lines += [f"instructions ({facts['instructions']}): {', '.join(map(repr, facts['tasks']))}"]
    lines += [f"network: {facts['parameters']:,} parameters"]
    lines += [f"  {key} = {value}" for key, value in dotted(asdict(recipe))]
    output.summary({"dry_run": True, **facts, "recipe": asdict(recipe)}, *lines)
