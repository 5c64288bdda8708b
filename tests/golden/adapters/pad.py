"""Robert-gyj/Prediction_with_Action: the joint network, and one step back for the frames and for the actions."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from polydit.core.nn.embeddings import sincos_grid
from polydit.core.objectives import GaussianDiffusion, respace
from polydit.core.testing.golden import GoldenCase
from polydit.robopolicy.pad.convert import read_pad
from polydit.robopolicy.pad.network import Modalities, PADTransformer
from polydit.robopolicy.pad.objective import respaced_times

Joined = Mapping[str, Tensor]


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    settings, tables, given = case.config["args"], position_tables(case), case.inputs()
    model = through_the_file(case, tables)
    noisy = Modalities(
        images=given["x"].unflatten(1, (settings["predict_horizon"], -1)),
        actions=given["noised_action"].flatten(1).unflatten(1, (settings["action_steps"], -1)),
        depth_maps=given.get("noised_depth"),
    )
    now = Modalities(
        images=given["x_cond"][:, None], actions=given.get("action_cond"), depth_maps=given.get("depth_cond")
    )
    value, variance = (published(part, case) for part in model(noisy, now, given["t"], given["y"]))
    axes = {"image": 1, "action": -1, "depth": 1}
    forward = {name: torch.cat([x, variance[name]], dim=axes[name]) for name, x in value.items()}
    return {**forward, **tables, **one_step(model, noisy, now, case)}


def position_tables(case: GoldenCase) -> dict[str, Tensor]:
    """The fixed tables that the published constructor makes and the file holds."""
    settings, width = case.config["args"], case.config["hidden_size"]
    side = case.config["input_size"] // case.config["patch_size"]
    grid = sincos_grid((side, side), width)
    tokens = 1 if settings["action_condition"] else settings["action_steps"]
    tables = {"pos_embed": grid, "a_pos_embed": sincos_grid((tokens,), width)}
    if settings["use_depth"]:
        ratio = settings["d_patch_size"] // case.config["patch_size"]
        tables["d_pos_embed"] = grid.unflatten(0, (side, side))[::ratio, ::ratio].flatten(0, 1)
    return {name: table[None] for name, table in tables.items()}


def through_the_file(case: GoldenCase, tables: Mapping[str, Tensor]) -> PADTransformer:
    """The network from the kind of file that the published program writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0030000.pt"
        namespace = argparse.Namespace(**case.config["args"])
        torch.save({"model": case.state_dict(tables), "args": namespace}, path)
        return read_pad(path, heads=case.config["num_heads"])


def published(parts: Modalities, case: GoldenCase) -> Joined:
    """Published names and shapes: frames stacked on the channels, a chunk in one token if it is conditioned."""
    names = {"images": "image", "actions": "action", "depth_maps": "depth"}
    shaped = {names[name]: x for name, x in parts.items()}
    shaped["image"] = shaped["image"].flatten(1, 2)
    if case.config["args"]["action_condition"]:
        shaped["action"] = shaped["action"].flatten(1)[:, None]
    return shaped


def one_step(model: PADTransformer, noisy: Modalities, now: Modalities, case: GoldenCase) -> Joined:
    """Mean and log-variance of the posterior at one respaced step, if the case has one."""
    if "one_step" not in case.config:
        return {}
    chosen, given = case.config["one_step"], case.inputs()
    times = respaced_times(chosen["steps"])
    diffusion = GaussianDiffusion(respace(GaussianDiffusion.linear().betas, times))
    index = torch.full_like(given["t"], chosen["index"])
    noise, v = model(noisy, now, torch.from_numpy(times)[index], given["y"])
    back = {
        name: diffusion.posterior(diffusion.data_from(noise[name], x, index), x, index, v[name])
        for name, x in noisy.items()
    }
    mean = published(Modalities(**{name: step.mean for name, step in back.items()}), case)
    log = published(Modalities(**{name: step.log_variance for name, step in back.items()}), case)
    return {
        "one_step_mean": mean["image"],
        "one_step_log_variance": log["image"],
        "one_step_mean_a": mean["action"],
        "one_step_log_variance_a": log["action"],
        "timestep_map": torch.from_numpy(times),
    }
