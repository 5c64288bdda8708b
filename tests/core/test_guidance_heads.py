"""SoftPAG and the search of heads: the ends of u are exact, and the head that matters is found."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.guiders import ClassifierFreeGuidance, PerturbedAttentionGuidance
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.models import DiT
from polydit.core.sampling import denoise
from polydit.core.sampling.cache.hooks import handling
from polydit.core.sampling.guidance import (
    Guided,
    Head,
    HeadHunter,
    HeadRanking,
    RankedHead,
    SoftPAG,
    heads_of,
)
from polydit.core.sampling.guidance.heads import TowardIdentity

BLOCKS, HEADS, NULL = 3, 4, 10
TIME = torch.tensor(0.5)


def tiny(window: int = 0) -> DiT:
    torch.manual_seed(0)
    network = DiT(
        sample_size=8, width=32, depth=BLOCKS, heads=HEADS, num_classes=NULL, learn_sigma=False,
        window=window, window_blocks=[1],
    )  # fmt: skip
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.15)
    return network.eval()


def soft_pag(
    heads: Sequence[Sequence[int]], strength: float = 1.0, weight: float = 1.0, scale: float = 1.0
) -> SoftPAG:
    return SoftPAG(heads=heads, strength=strength, perturbed_guidance_scale=weight, guidance_scale=scale)


def guided(network: DiT, guider: object, num_steps: int = 1) -> Guided:
    def call(x: Tensor, timestep: Tensor, labels: Tensor) -> Tensor:
        return network(x, timestep.expand(len(x)), labels).sample

    labels = (torch.tensor([3, 5]), torch.tensor([NULL, NULL]))
    return Guided(network, call, guider, {"labels": labels}, num_steps=num_steps)


@torch.no_grad()
def at(network: DiT, guider: object) -> Tensor:
    """A prediction of the second of two steps."""
    run, x = guided(network, guider, 2), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    run(x, TIME, None)
    return run(x, TIME, None)


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("scale", [3.0, 1.0])
def test_all_heads_at_strength_one_are_perturbed_attention_guidance(scale: float, window: int) -> None:
    network = tiny(window)
    for block in range(BLOCKS):
        soft = soft_pag(heads_of(network, [block]), 1.0, 2.0, scale)
        # without classifier-free guidance diffusers counts w from p, SoftPAG from c: see the package's table
        weight = 2.0 if scale != 1.0 else 3.0
        pag = PerturbedAttentionGuidance(
            scale, weight, perturbed_guidance_layers=[block], perturbed_guidance_stop=1.0
        )
        torch.testing.assert_close(at(network, soft), at(network, pag), atol=2e-6, rtol=2e-6)
        if scale != 1.0:
            assert torch.equal(at(network, soft), at(network, pag))


@pytest.mark.parametrize("scale", [3.0, 1.0])
def test_strength_zero_no_heads_or_no_scale_is_no_perturbation(scale: float) -> None:
    network = tiny()
    plain = at(network, ClassifierFreeGuidance(scale))
    some = heads_of(network)
    for heads, strength, weight in ((some, 0.0, 2.0), ([], 1.0, 2.0), (some, 1.0, 0.0)):
        none = soft_pag(heads, strength, weight, scale)
        assert torch.equal(at(network, none), plain)
        assert guided(network, none, 4).calls_per_step == (1, 1, 1, 1)
    assert not torch.equal(at(network, soft_pag(some, 0.01, 2.0, scale)), plain)


@torch.no_grad()
def test_the_attention_of_chosen_heads_is_the_interpolated_map() -> None:
    """Against the written-out map, softmax(q kᵀ / √e) moved toward I; ends exact, other heads untouched."""
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(2, HEADS, 6, 8, generator=generator) for _ in range(3))
    maps = (q @ k.mT / math.sqrt(8)).softmax(-1)
    whole = F.scaled_dot_product_attention(q, k, v)

    def attend(strength: float, heads: tuple[int, ...] | None) -> Tensor:
        return TowardIdentity(strength, heads)(lambda: F.scaled_dot_product_attention(q, k, v), (), {})

    for strength in (0.0, 0.3, 0.5, 0.8, 1.0):
        found = attend(strength, (1, 3))
        moved = ((1 - strength) * maps + strength * torch.eye(6)) @ v
        torch.testing.assert_close(found[:, 1::2], moved[:, 1::2])
        assert torch.equal(found[:, ::2], whole[:, ::2])
        torch.testing.assert_close(attend(strength, None), moved)
    assert torch.equal(attend(0.0, None), whole)
    assert torch.equal(attend(0.0, (0, 2)), whole)
    assert torch.equal(attend(1.0, None), v)
    assert torch.equal(attend(1.0, (0, 1, 2, 3)), v)


@torch.no_grad()
def test_grouped_queries_take_the_values_of_their_group() -> None:
    q, k, v = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8)
    found = TowardIdentity(1.0, (1, 2))(
        lambda: F.scaled_dot_product_attention(q, key=k, value=v, enable_gqa=True), (), {}
    )
    plain = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    assert torch.equal(found[:, 1], v[:, 0])
    assert torch.equal(found[:, 2], v[:, 1])
    assert torch.equal(found[:, ::3], plain[:, ::3])


def test_attention_that_cannot_be_perturbed_says_so() -> None:
    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.softmax(-1) @ x

    module = Slow()
    with (
        handling({module: TowardIdentity(0.5)}),
        pytest.raises(InputError, match="Slow computes no attention"),
    ):
        module(torch.ones(2, 2))


@torch.no_grad()
def test_soft_pag_is_a_guider_of_diffusers() -> None:
    """Its own way of doing it, its config, its copy."""
    network = tiny()
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = (torch.tensor([3, 5]), torch.tensor([NULL, NULL]))
    for scale in (3.0, 1.0):
        soft = soft_pag([(1, 2), (0, 1)], 0.6, 2.0, scale)
        again = SoftPAG.from_config(json.loads(json.dumps(dict(soft.config))))
        assert again.heads == soft.heads == (Head(1, 2), Head(0, 1))
        again.set_state(0, 2, TIME)
        states = again.prepare_inputs({"labels": labels})
        conditional = []
        for state in states:
            again.prepare_models(network)
            conditional.append(again.is_conditional)
            state.noise_pred = network(x, TIME.expand(2), state.labels).sample
            again.cleanup_models(network)
        assert conditional == ([True, False, True] if scale == 3.0 else [True, True])
        torch.testing.assert_close(again(states).pred, at(network, soft))
        assert not any("forward" in module.__dict__ for module in network.modules())
    other = soft.with_heads([(2, 0)])
    assert other.heads == SoftPAG.from_config(other.config).heads == (Head(2, 0),)
    assert soft.heads == (Head(1, 2), Head(0, 1))


def test_heads_are_counted_over_all_blocks() -> None:
    network = tiny()
    assert heads_of(network) == tuple(Head(b, h) for b in range(BLOCKS) for h in range(HEADS))
    assert heads_of(network, [2]) == tuple(Head(2, h) for h in range(HEADS))
    flux = FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    assert heads_of(flux) == tuple(Head(b, h) for b in range(3) for h in range(2))


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no such head": (lambda: at(tiny(), soft_pag([(0, 4)])), "block 0 has no head 4; expected 0 to 3"),
    "no such block": (lambda: at(tiny(), soft_pag([(3, 0)])), "no block 3; expected 0 to 2"),
    "no such blocks": (lambda: heads_of(tiny(), [0, 7]), "no block 7"),
    "no pair": (lambda: soft_pag([(1,)]), r"\[1\] is no head"),
    "strength": (lambda: soft_pag([(0, 0)], 1.5), "strength is 1.5; expected 0 to 1"),
    "NaN strength": (lambda: soft_pag([(0, 0)], math.nan), "strength is nan"),
    "NaN scale": (lambda: at(tiny(), soft_pag([(0, 0)], 0.5, math.nan)), "perturbed_guidance_scale is nan"),
    "a head twice": (lambda: HeadHunter(candidates=(Head(0, 0), Head(0, 0)), rounds=1), "comes twice"),
    "too few heads": (lambda: HeadHunter(candidates=(Head(0, 0),), rounds=2), "2 rounds of 1 heads from 1"),
    "no round": (lambda: HeadHunter(candidates=(Head(0, 0),), rounds=0), "0 rounds"),
    "NaN score": (
        lambda: HeadHunter(candidates=(Head(2, 1),), rounds=1).search(
            lambda heads: math.nan if heads else 0.0, lambda score: score
        ),
        "objective: the score with the heads 2.1 is nan",
    ),
    "no ranking": (lambda: HeadRanking.from_json('{"heads": []}'), "no ranking of heads"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_by_name(name: str) -> None:
    attempt, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        attempt()


def mute_all_but(network: DiT, spoken: Head) -> None:
    """Output projections that let only one head through, so that the maps of all others do not matter."""
    for index, block in enumerate(network.blocks):
        width = block.attn.out.in_features // HEADS
        for head in range(HEADS):
            if Head(index, head) != spoken:
                nn.init.zeros_(block.attn.out.weight[:, head * width : (head + 1) * width])


def test_the_search_finds_the_head_that_matters() -> None:
    network = tiny()
    mute_all_but(network, Head(1, 2))
    soft = soft_pag([])
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))

    def sample(heads: tuple[Head, ...]) -> Tensor:
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(3)
        return denoise(guided(network, soft.with_heads(heads), 3), noise, scheduler)

    plain = sample(())
    told: list[tuple[int, int]] = []
    hunter = HeadHunter(candidates=heads_of(network, [0, 1]), rounds=2)
    rankings = [
        hunter.search(
            sample, lambda x: float((x - plain).norm()), on_evaluation=lambda *pair: told.append(pair)
        )
        for _ in range(2)
    ]
    found = rankings[0]
    assert found == rankings[1] == HeadRanking.from_json(found.to_json())
    assert found.baseline == 0.0
    assert found.selected() == (Head(1, 2), Head(0, 0))  # all others are level: the first of them
    assert found.heads[0].score == found.heads[1].score > 0.0
    assert found.selected(1) == (Head(1, 2),)
    assert hunter.num_evaluations == 1 + 8 + 7
    assert told == [(done, 16) for done in range(17)] * 2
    assert [head.round for head in found.heads] == [0, 1]


def test_rounds_build_on_each_other_and_equal_scores_keep_their_order() -> None:
    """(0, 1) serves only together with (0, 2), which comes first; the rest is level."""
    worth = {Head(0, 2): 3.0, Head(0, 0): 1.0}
    drawn: list[tuple[Head, ...]] = []

    def sample(heads: tuple[Head, ...]) -> float:
        drawn.append(heads)
        together = 5.0 if {Head(0, 1), Head(0, 2)} <= {*heads} else 0.0
        return sum(worth.get(head, 0.0) for head in heads) + together

    hunter = HeadHunter(candidates=tuple(Head(0, head) for head in range(6)), rounds=2, per_round=2)
    found = hunter.search(sample, lambda score: score)
    assert found.heads == (
        RankedHead(0, 2, 3.0, 0),
        RankedHead(0, 0, 1.0, 0),
        RankedHead(0, 1, 9.0, 1),
        RankedHead(0, 3, 4.0, 1),
    )
    assert len(drawn) == hunter.num_evaluations == 1 + 6 + 4
    assert drawn[0] == ()
    assert drawn[7] == (Head(0, 2), Head(0, 0), Head(0, 1))
