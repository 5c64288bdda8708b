"""From demonstrations to a policy's folder; interrupted, it goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polydit.core.errors import InputError
from polydit.core.jobs.files import naming_write_errors
from polydit.core.jobs.seeds import item_seed
from polydit.core.training.trainer import Trainer
from polydit.robopolicy.data.info import DatasetInfo
from polydit.robopolicy.data.readers import Dataset, good_episodes, measure, read_dataset
from polydit.robopolicy.data.statistics import Statistics, number_statistics
from polydit.robopolicy.data.windows import Windows
from polydit.robopolicy.episode import ACTION, STATE, Episode
from polydit.robopolicy.language import Instructions
from polydit.robopolicy.models import Sizes, action_model, build_network, future_frames, model_settings
from polydit.robopolicy.normalize import Normalizer, Scale
from polydit.robopolicy.policy import RobotPolicy
from polydit.robopolicy.recipe import Recipe
from polydit.robopolicy.train import PolicyLoss, PolicyTask, TrainingData, offsets

Progress = Callable[[int, int, dict[str, Any]], None]

_LAST = "model_index.json"  # what makes the folder a policy, so it is written last
_SHOWN = 8


class FirstEpisodes(Dataset):
    """The beginning of a data set, as a data set.

    Args:
        whole: The data set.
        count: At most so many episodes.
    """

    def __init__(self, whole: Dataset, count: int) -> None:
        self.path, self.stored = whole.path, None  # what is stored is of the whole
        self._whole, self._count = whole, count

    @property
    def info(self) -> DatasetInfo:
        """What it is."""
        return self._whole.info

    @property
    def statistics(self) -> Statistics:
        """Statistics of these episodes."""
        return measure(good_episodes(self))

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the whole."""
        return self._whole.problems

    def __len__(self) -> int:
        """Number of episodes."""
        return min(self._count, len(self._whole))

    def __getitem__(self, index: int) -> Episode:
        """One episode."""
        return self._whole[index]


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that is known before the first step: data that were read, and a policy that they fit.

    Args:
        policy: A new one, or the one to go on from.
        data: Batches for it.
    """

    policy: RobotPolicy
    data: TrainingData


def prepare(
    dataset: Dataset,
    recipe: Recipe,
    *,
    start: RobotPolicy | None = None,
    language: Instructions | None = None,
) -> Prepared:
    """Read the data and make the policy: a new one of the recipe's size, or `start` if the data fit it.

    Args:
        dataset: Demonstrations. Episodes that cannot be read are left out; `data.windows.rejected` names them.
        recipe: Sizes and settings.
        start: A policy to go on from; its network, scales and instructions are kept, and the recipe says only how it
            is trained. None = a new one.
        language: Embeddings of the instructions; None = fixed vectors.

    Raises:
        InputError: If no episode can be read, or the data do not fit the recipe or the policy to go on from.
    """
    if start is not None:
        cameras, future = start.config.cameras, future_frames(start.model)
        windows = _windows(dataset, start.model.horizon, cameras, future)
        check_fit(start, windows, _statistics(windows))
        policy = start
    else:
        future = _future_of(recipe)
        windows = _windows(dataset, recipe.horizon, recipe.cameras, future)
        policy = _new(windows, dataset.info.robot_type, recipe, language)
    data = TrainingData(
        windows=windows,
        units=policy.units,
        instructions=policy.instructions,
        image_size=policy.config.image_size,
    )
    return Prepared(policy, data)


def fit(
    dataset: Path | Dataset,
    recipe: Recipe,
    out: Path,
    *,
    start: RobotPolicy | None = None,
    language: Instructions | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Train a policy and save it; run again after an interruption and it goes on.

    Args:
        dataset: Demonstrations, or where they lie.
        recipe: As in `prepare`.
        out: The policy's folder; the training's own files are in `out/training`.
        start: As in `prepare`.
        language: As in `prepare`.
        device: "auto", or "cpu" to leave accelerators alone.
        progress: Told (step, steps, scalars).

    Returns:
        `out`.

    Raises:
        InputError: As `prepare`.
        PolyditError: If the training was interrupted or diverged.
    """
    if isinstance(dataset, Path):
        dataset = read_dataset(dataset)
    return run(
        prepare(dataset, recipe, start=start, language=language),
        recipe,
        out,
        device=device,
        progress=progress,
    )


def run(
    prepared: Prepared, recipe: Recipe, out: Path, *, device: str = "auto", progress: Progress | None = None
) -> Path:
    """`fit`, from what `prepare` made."""
    policy, data, config = prepared.policy, prepared.data, recipe.training
    settings = {**policy.config.model_settings, **model_settings(recipe)}
    learning = action_model(policy.config.model, policy.network, **settings)
    trainer = Trainer(
        PolicyTask(PolicyLoss(learning, policy.network)),
        range(len(data)),
        data.collate,
        config,
        out / "training",
        device=device,
        on_step=None if progress is None else lambda step, scalars: progress(step, config.steps, scalars),
    )
    trainer.fit()
    policy.network.eval()
    save(policy, recipe, out)
    return out


def save(policy: RobotPolicy, recipe: Recipe, out: Path) -> None:
    """Write the policy into its folder; a kill on the way leaves no folder that looks whole and is not."""
    aside = out / "saving.tmp"
    with naming_write_errors(out):
        shutil.rmtree(aside, ignore_errors=True)
        policy.save_pretrained(aside)
        (aside / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
        (out / _LAST).unlink(missing_ok=True)
        for part in sorted(aside.iterdir(), key=lambda part: part.name == _LAST):
            if (out / part.name).is_dir():
                shutil.rmtree(out / part.name)
            part.replace(out / part.name)
        aside.rmdir()


# ---------------------------------------------------------------------------------------------------------
# A new policy


def _new(windows: Windows, robot_type: str, recipe: Recipe, language: Instructions | None) -> RobotPolicy:
    tasks = list(dict.fromkeys(windows.tasks))
    known = language or Instructions.vectors(tasks, recipe.language_width, recipe.training.seed)
    instructions = known.select(tasks)
    normalizer = Normalizer.of(_statistics(windows), state=recipe.state, action=recipe.action)
    sizes = Sizes(
        state=normalizer.state.size,
        action=normalizer.action.size,
        language=instructions.width,
        language_tokens=max(len(tokens) for tokens in instructions.embeddings.values()),
    )
    torch.manual_seed(item_seed(recipe.training.seed, "network"))
    return RobotPolicy(
        build_network(recipe, sizes),
        normalizer,
        instructions,
        model=recipe.model,
        execute=recipe.execute,
        num_steps=recipe.num_steps,
        fps=windows.fps,
        robot_type=robot_type,
        cameras=recipe.cameras,
        image_size=recipe.image_size,
        arm=recipe.rdt.arm if recipe.model == "rdt" else "",
    )


def _windows(
    dataset: Dataset, horizon: int, cameras: tuple[str, ...] | list[str], future: tuple[int, ...]
) -> Windows:
    return Windows(dataset, horizon, cameras=cameras, image_offsets=offsets(future))


def _future_of(recipe: Recipe) -> tuple[int, ...]:
    """Frames ahead of the pictures that a new policy will predict."""
    if recipe.model != "pad":
        return ()
    if not recipe.cameras:
        hint = "Name one with --set 'cameras=[\"NAME\"]'; robopolicy data inspect lists them"
        raise InputError("PAD predicts pictures, and the recipe names no camera", where="cameras", hint=hint)
    return tuple(
        recipe.pad.frame_skip * (i + 1) for i in range(recipe.pad.future_frames if recipe.pad.joint else 0)
    )


def _statistics(windows: Windows) -> dict[str, Mapping[str, np.ndarray]]:
    """Of the episodes that are used, which need not be all of the data set."""
    return {STATE: number_statistics(windows.states), ACTION: number_statistics(windows.actions)}


# ---------------------------------------------------------------------------------------------------------
# Going on from a policy


def check_fit(
    policy: RobotPolicy, windows: Windows, statistics: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Refuse data that a policy cannot be trained further on.

    Raises:
        InputError: If frames per second, shapes, the range of values or instructions differ; all are named.
    """
    scales = {STATE: policy.normalizer.state, ACTION: policy.normalizer.action}
    sizes = {STATE: windows.states.shape[1], ACTION: windows.actions.shape[1]}
    wrong = [
        f"{key} has the shape ({sizes[key]},) in the data and ({scale.size},) in the policy"
        for key, scale in scales.items()
        if sizes[key] != scale.size
    ]
    if policy.config.fps and windows.fps != policy.config.fps:
        wrong.append(f"the data have {windows.fps:g} frames per second and the policy {policy.config.fps:g}")
    if not wrong:
        wrong = [
            f"{key}{problem}" for key, scale in scales.items() for problem in _outside(scale, statistics[key])
        ]
    if wrong:
        hint = "Convert the data, or train a new policy on them"
        raise InputError(f"the data do not fit the policy: {'; '.join(wrong[:_SHOWN])}", hint=hint)
    policy.instructions.require(windows.tasks, where="the data's tasks")


def _outside(scale: Scale, row: Mapping[str, np.ndarray]) -> list[str]:
    """Dimensions whose middle 98 % leave the policy's own range by more than that range is wide."""
    room = np.maximum(scale.high - scale.low, 1e-2)
    bad = (row["q01"] < scale.low - room) | (row["q99"] > scale.high + room)
    return [
        f"[{i}] runs from {row['q01'][i]:.4g} to {row['q99'][i]:.4g} in the data and from {scale.low[i]:.4g} to "
        f"{scale.high[i]:.4g} in the policy's"
        for i in np.flatnonzero(bad)
    ]
