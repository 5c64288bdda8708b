"""`robopolicy train`: a policy from demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polydit.core.cli.config import apply_settings
from polydit.core.cli.options import checkpoint_option
from polydit.core.cli.training import Tell, TrainingCall, TrainingJob, data_option, training_options
from polydit.core.errors import InputError
from polydit.robopolicy.recipe import Recipe

if TYPE_CHECKING:
    from polydit.core.cli.output import Output
    from polydit.robopolicy.data.readers import Dataset
    from polydit.robopolicy.fit import Prepared
    from polydit.robopolicy.language import Instructions
    from polydit.robopolicy.policy import RobotPolicy

_OF_TRAINING = {  # settings that can change from one training of a network to the next
    "rdt.drop_conditions", "rdt.state_noise", "mode.goal_dropout", "mode.balance_weight", "pad.action_weight",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Training(TrainingJob[Recipe]):
    command = "robopolicy train"
    next_command = "robopolicy evaluate"
    products = (
        "network", "normalizer.json", "normalizer.safetensors", "instructions.json", "instructions.safetensors",
        "model_index.json", "recipe.json", "arm.toml", "training", "saving.tmp",
    )  # fmt: skip

    prepared: Prepared
    started_from: dict[str, Any]

    def provenance(self) -> dict[str, Any]:
        return {"episodes": len(self.prepared.data.windows.lengths), **self.started_from}

    def fit(self, tell: Tell) -> Path:
        from polydit.robopolicy.fit import run

        run(self.prepared, self.recipe, self.call.out, device=self.call.device, progress=tell)
        return self.call.out

    def plan(self) -> tuple[dict[str, Any], list[str]]:
        windows, policy = self.prepared.data.windows, self.prepared.policy
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
        return facts, [
            f"{facts['episodes']} episodes, {facts['frames']:,} frames at {facts['fps']:g} per second",
            f"state: {facts['state']} numbers, action: {facts['action']}",
            f"instructions ({facts['instructions']}): {', '.join(map(repr, facts['tasks']))}",
            f"network: {facts['parameters']:,} parameters",
        ]


@click.command()
@data_option(help="Demonstrations: any data set that `robopolicy data inspect` reads.")
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
@training_options(things="episodes")
def train(
    data: Path, model: str | None, language: Path | None, checkpoint: str | None, call: TrainingCall
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
    recipe = _recipe(model, call.settings)
    dataset = _read(data, call.limit)
    found, start = _policy(checkpoint)
    if start is not None:
        _refuse_other_network(start.config.model, model, call.settings)
        recipe = replace(recipe, model=start.config.model)
    prepared = _prepare(dataset, recipe, start, language, call.output)
    _Training(call=call, recipe=recipe, prepared=prepared, started_from=found).run()


def _recipe(model: str | None, settings: Mapping[str, Any]) -> Recipe:
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


def _refuse_other_network(known: str, model: str | None, settings: Mapping[str, Any]) -> None:
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
