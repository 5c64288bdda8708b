"""intuitive-robots/MoDE_Diffusion_Policy: the preconditioned denoiser, its routing, its loss and its sampler."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from polydit.core.nn.experts import RoutedFeedForward
from polydit.core.objectives.flow import NoisySample
from polydit.core.testing.golden import GoldenCase
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.mode.convert import MoDEConfig, network_from_published
from polydit.robopolicy.mode.policy import MoDEPolicy


class Given(MoDEPolicy):
    """A policy whose observation tokens are those of the case, which has two of them and no encoder."""

    observations: Tensor

    def _context(self, batch: PolicyBatch, generator: torch.Generator | None = None) -> Tensor:
        return self.network.context(self.observations, batch.language[:, 0])


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    given = case.inputs()
    state = {f"model.{name}": value for name, value in case.state_dict().items()}
    network = network_from_published(state, MoDEConfig.parse(case.config))
    policy = Given(network, num_steps=len(case.spec["outputs"]["sigmas"]["at"]) - 1)
    policy.observations = given["state_images"]
    edm, action, sigma = policy.objective, given["action"], given["sigma"]
    context = network.context(given["state_images"], given["goal"][:, 0])
    noise_level = edm.condition(sigma)

    def predict(x: Tensor) -> Tensor:
        return network(x, noise_level, context).sample

    routed = network(action, noise_level, context)
    tokens = network.noise_embed(noise_level[:, None])
    feeds = [block.mlp for block in network.blocks]
    again = [feed.router(tokens) for feed in feeds if isinstance(feed, RoutedFeedForward)]
    assert all(torch.equal(a.indices, b.indices) for a, b in zip(again, routed.routings, strict=True))
    noisy = NoisySample(
        action + sigma[:, None, None] * given["loss_noise"], sigma, given["loss_noise"], action
    )
    scheduler = edm.scheduler(low=0.001, high=80.0, spacing="exponential")
    scheduler.set_timesteps(policy.num_steps)
    batch = PolicyBatch(
        state=torch.zeros(len(action), 1),
        language=given["goal"],
        language_mask=torch.ones(given["goal"].shape[:2], dtype=torch.bool),
        control_frequency=torch.zeros(len(action)),
    )
    return {
        "denoised": edm.denoised(action, predict(edm.scaled(action, sigma)), sigma),
        "inner": routed.sample,
        "router_probs": torch.stack([routing.scores for routing in routed.routings])[:, :, None],
        "router_topk": torch.stack([routing.indices for routing in routed.routings])[:, :, None].float(),
        "loss_eval_mode": edm.loss(predict(edm.scaled(noisy.x_t, sigma)), noisy).mean()[None],
        "sigmas": scheduler.sigmas,
        "ddim": policy.sample(batch, given["start_noise"]),
    }
