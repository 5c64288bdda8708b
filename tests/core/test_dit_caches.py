"""Every cache of diffusers runs on our DiT: something is skipped, and without the cache the output is as before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    SeaCacheConfig,
    TaylorSeerCacheConfig,
    TextKVCacheConfig,
)
from torch import nn

from polydit.core.models import DiT

STEPS = 12


class Run:
    """A denoising run on a tiny DiT that counts how often each kind of layer is computed."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.timestep = 0
        self.model = DiT(sample_size=8, width=32, depth=4, heads=4, num_classes=10, learn_sigma=False).eval()
        for parameter in self.model.parameters():
            nn.init.normal_(parameter, std=0.05)
        self.calls = {"attention": 0, "feed-forward": 0, "items": 0}
        for block in self.model.blocks:
            block.attn.qkv.register_forward_hook(self._count("attention"))
            block.mlp.register_forward_hook(self._count("feed-forward"))

    def _count(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
            self.calls[name] += 1
            self.calls["items"] += inputs[0].shape[0]

        return hook

    @torch.no_grad()
    def sample(self) -> tuple[torch.Tensor, dict[str, int]]:
        self.calls.update(dict.fromkeys(self.calls, 0))
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)).repeat(2, 1, 1, 1)
        labels = torch.tensor([10, 10, 3, 5])
        for step, self.timestep in enumerate(torch.linspace(999, 0, STEPS).long().tolist()):
            sigma = (self.timestep + 1) / 1001
            with self.model.cache_context("run", step_index=step, sigma=sigma, num_inference_steps=STEPS):
                time = torch.full((4,), self.timestep)
                out = self.model(hidden_states=x, timestep=time, class_labels=labels).sample
            x = x - 0.05 * out
        return x, dict(self.calls)


CONFIGS: dict[str, tuple[Callable[[Run], object], str | None]] = {
    "pyramid-attention-broadcast": (
        lambda run: PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(100, 900),
            spatial_attention_block_identifiers=("blocks",),
            current_timestep_callback=lambda: run.timestep,
        ),
        "attention",
    ),
    "faster-cache": (
        lambda run: FasterCacheConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 900),
            unconditional_batch_skip_range=3,
            unconditional_batch_timestep_skip_range=(-1, 900),
            spatial_attention_block_identifiers=("blocks",),
            attention_weight_callback=lambda _: 0.5,
            tensor_format="BCHW",
            current_timestep_callback=lambda: run.timestep,
            _unconditional_conditional_input_kwargs_identifiers=["hidden_states", "timestep", "class_labels"],
        ),
        "items",
    ),
    "first-block": (lambda _: FirstBlockCacheConfig(threshold=0.5), "feed-forward"),
    "mag": (
        lambda _: MagCacheConfig(num_inference_steps=STEPS, mag_ratios=[1.0] * STEPS, threshold=0.2),
        "feed-forward",
    ),
    "sea": (lambda _: SeaCacheConfig(threshold=0.5, raw_vision_callback=_frames), "feed-forward"),
    "taylorseer": (
        lambda _: TaylorSeerCacheConfig(
            cache_interval=3, disable_cache_before_step=2, max_order=1, taylor_factors_dtype=torch.float32
        ),
        "attention",
    ),
    # our DiT has no text tokens, so there is nothing for it to keep; it must do no harm
    "text-kv": (lambda _: TextKVCacheConfig(), None),
}


def _frames(
    _model: nn.Module, _args: tuple[object, ...], kwargs: dict[str, torch.Tensor]
) -> list[torch.Tensor]:
    """Latents as SeaCache wants them: (channels, frames, height, width) per item."""
    return [latent[:, None] for latent in kwargs["hidden_states"]]


# torch's own warning about a call inside diffusers' FasterCache
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
@pytest.mark.parametrize("name", CONFIGS)
def test_cache_skips_work_and_leaves_no_trace(name: str) -> None:
    build, skipped = CONFIGS[name]
    run = Run()
    plain, all_calls = run.sample()
    run.model.enable_cache(build(run))
    cached, calls = run.sample()
    assert torch.isfinite(cached).all()
    if skipped is None:
        assert torch.equal(cached, plain)
    else:
        assert calls[skipped] < 0.9 * all_calls[skipped], (
            f"{name} computed everything: {calls} of {all_calls}"
        )
        torch.testing.assert_close(cached, plain, atol=0.5, rtol=0.5)
    run.model.disable_cache()
    again, calls_again = run.sample()
    assert torch.equal(again, plain)
    assert calls_again == all_calls
