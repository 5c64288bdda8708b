"""thu-ml/RoboticsDiffusionTransformer: position tables, the transformer alone, and the whole policy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from polydit.core.testing.golden import GoldenCase
from polydit.robopolicy.rdt.convert import RDTConfig, policy_from_published
from polydit.robopolicy.rdt.network import Conditions, Context
from polydit.robopolicy.rdt.positions import condition_positions, token_positions


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    return transformer(case) if "output_dim" in case.config else runner(case)


def tables(case: GoldenCase, width: int, horizon: int) -> dict[str, Tensor]:
    """The fixed start values of the three position tables."""
    layouts = {
        side: condition_positions(case.config[f"{side}_pos_embed_config"][0][1], width)
        for side in ("lang", "img")
    }
    return {"x_pos_embed": token_positions(horizon, width)} | {
        f"{side}_cond_pos_embed": table for side, table in layouts.items()
    }


def transformer(case: GoldenCase) -> Mapping[str, Tensor]:
    """The published module without its adaptors: tokens of the transformer's width in, actions out."""
    config, given = case.config, case.inputs()
    width = config["hidden_size"]
    made = tables(case, width, config["horizon"])
    state = {f"model.{name}": value for name, value in case.state_dict(made).items()}
    for side, layers, entries in (("lang", 2, 1), ("img", 2, 1), ("state", 3, 2 * config["output_dim"])):
        for layer in range(layers):  # the case has no adaptors, and what it calls lies behind them
            state[f"{side}_adaptor.{2 * layer}.weight"] = torch.zeros(width, width if layer else entries)
            state[f"{side}_adaptor.{2 * layer}.bias"] = torch.zeros(width)
    network = policy_from_published(state, RDTConfig.parse(config)).network
    clocks = [network.time_embed(given["t"]), network.frequency_embed(given["freq"])]
    tokens = torch.cat([torch.stack(clocks, dim=1), given["x"]], dim=1)
    language, pictures = given["lang_c"], given["img_c"]
    length = language.shape[1]
    streams = [
        Context.of(language + network.language_positions[:, :length], given["lang_mask"]),
        Context.of(pictures + network.image_positions),
    ]
    return {"actions": network.transform(tokens, network.alternate(streams)), **made}


def runner(case: GoldenCase) -> Mapping[str, Tensor]:
    """Sampling from given noise, and the loss at given noise and times."""
    config, given = case.config, case.inputs()
    width = config["config"]["rdt"]["hidden_size"]
    made = {f"model.{k}": v for k, v in tables(case, width, config["pred_horizon"]).items()}
    policy = policy_from_published(case.state_dict(made), RDTConfig.parse(config))
    mask = given["action_mask"][:, 0]
    conditions = Conditions(
        state=given["state_tokens"][:, 0],
        state_mask=mask,
        action_mask=mask,
        control_frequency=given["ctrl_freqs"],
        language=given["lang_tokens"],
        language_mask=given["lang_attn_mask"],
        images=given["img_tokens"],
    )
    actions, noise, t = given["action_gt"], given["loss_noise"], given["loss_t"]
    return {
        "predict_action": policy.solve(conditions, given["noise"]),
        "timesteps": policy.scheduler(policy.num_steps).timesteps,
        "loss": policy.error(conditions, actions, noise, t)[None],
        "noisy_action": policy.noisy(actions, noise, t),
    }
