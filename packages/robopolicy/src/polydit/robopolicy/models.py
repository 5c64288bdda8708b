"""The three systems by their short names: how one is built for a robot, and how a stored one is taken up again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from diffusers import ModelMixin

from polydit.core.errors import InputError
from polydit.robopolicy.batch import ActionModel
from polydit.robopolicy.recipe import Recipe
from polydit.robopolicy.spaces.unified import SIZE


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """What the data decide about a network.

    Args:
        state: State dimensions.
        action: Action dimensions.
        language: Width of the instructions' embeddings.
        language_tokens: Most tokens of an instruction.
    """

    state: int
    action: int
    language: int
    language_tokens: int


def network_class(name: str) -> Any:
    """The network's class of a system.

    Raises:
        InputError: If there is no system of that name.
    """
    return _home(name, "network")


def action_model(name: str, network: ModelMixin, **settings: Any) -> ActionModel:
    """A system around its network.

    Args:
        name: "rdt", "mode" or "pad".
        network: Its network.
        settings: Further arguments of its class.

    Raises:
        InputError: If there is no system of that name.
    """
    model: ActionModel = _home(name, "policy")(network, **settings)
    return model


def build_network(recipe: Recipe, sizes: Sizes) -> ModelMixin:
    """An untrained network of the recipe's size.

    Raises:
        InputError: If the sizes do not fit one another.
    """
    try:
        return network_class(recipe.model)(**_SETTINGS[recipe.model](recipe, sizes))
    except (ValueError, AssertionError) as error:
        raise InputError(f"the recipe makes no {recipe.model} network: {error}") from error


def model_settings(recipe: Recipe) -> dict[str, Any]:
    """What a system is told in training besides its network; nothing of it is needed for acting."""
    if recipe.model == "mode":
        return {"goal_dropout": recipe.mode.goal_dropout, "balance_weight": recipe.mode.balance_weight}
    if recipe.model == "pad":
        return {"action_weight": recipe.pad.action_weight}
    from polydit.robopolicy.rdt.conditions import Withholding

    noise = recipe.rdt.state_noise
    snr = -20.0 * math.log10(noise) if noise else None
    return {"withholding": Withholding(probability=recipe.rdt.drop_conditions, state_snr=snr)}


def future_frames(model: ActionModel) -> tuple[int, ...]:
    """How many frames ahead the pictures lie that a system predicts; none for one that plans actions only."""
    return tuple(getattr(model, "future_offsets", ()))


def _home(name: str, part: str) -> Any:
    if name not in NETWORKS:
        raise InputError(f"unknown model {name!r}", expected=" or ".join(NETWORKS))
    kind = NETWORKS[name][("network", "policy").index(part)]
    return getattr(import_module(f"polydit.robopolicy.{name}.{part}"), kind)


def _rdt(recipe: Recipe, sizes: Sizes) -> dict[str, Any]:
    side = recipe.image_size // recipe.rdt.patch_size
    return {
        "horizon": recipe.horizon,
        "action_dim": SIZE if recipe.rdt.arm else sizes.action,
        "state_dim": None if recipe.rdt.arm else sizes.state,
        "language_dim": sizes.language,
        "max_language_tokens": sizes.language_tokens,
        "image_encoder": "patches" if recipe.cameras else "none",
        "image_layout": (len(recipe.cameras), side, side),
        "patch_size": recipe.rdt.patch_size,
        "norm": recipe.rdt.norm,
        **asdict(recipe.network),
    }


def _pad(recipe: Recipe, sizes: Sizes) -> dict[str, Any]:
    known = recipe.pad.known_state
    return {
        "sample_size": recipe.image_size,
        "patch_size": recipe.pad.patch_size,
        "in_channels": 3,
        "future_frames": recipe.pad.future_frames,
        "horizon": recipe.horizon,
        "action_dim": sizes.action,
        "state_dim": sizes.state if known < 0 else known,
        "action_tokens": recipe.pad.action_tokens or recipe.horizon,
        "text_dim": sizes.language,
        "prediction": recipe.pad.prediction,
        "frame_skip": recipe.pad.frame_skip,
        "joint": recipe.pad.joint,
        **asdict(recipe.network),
    }


def _mode(recipe: Recipe, sizes: Sizes) -> dict[str, Any]:
    return {
        "horizon": recipe.horizon,
        "action_dim": sizes.action,
        "observation_dim": 0,
        "goal_dim": sizes.language,
        "state_dim": sizes.state,
        "cameras": len(recipe.cameras),
        "num_experts": recipe.mode.experts,
        "top_k": recipe.mode.active_experts,
        "dense": recipe.mode.dense,
        "hidden_ratio": recipe.mode.hidden_ratio,
        **asdict(recipe.network),
    }


NETWORKS = {  # system: the classes of its network (in <name>/network.py) and of itself (in <name>/policy.py)
    "rdt": ("RDT", "RDTPolicy"),
    "mode": ("MoDE", "MoDEPolicy"),
    "pad": ("PADTransformer", "PADPolicy"),
}
_SETTINGS: Mapping[str, Callable[[Recipe, Sizes], dict[str, Any]]] = {"rdt": _rdt, "mode": _mode, "pad": _pad}
