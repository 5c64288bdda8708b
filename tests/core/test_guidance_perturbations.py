"""What guiders change in a network: attention, blocks, feed-forwards; as diffusers' own hooks where those are right."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from diffusers.guiders import (
    AutoGuidance,
    BaseGuidance,
    ClassifierFreeGuidance,
    LTX2Guidance,
    PerturbedAttentionGuidance,
    SkipLayerGuidance,
    SmoothedEnergyGuidance,
)
from diffusers.hooks import LayerSkipConfig
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling.guidance import SoftPAG, heads_of
from polydit.core.sampling.guidance.perturbations import perturbations_of

ITEMS, NULL = 2, 10
LABELS = {"labels": (torch.tensor([3, 5]), torch.full((ITEMS,), NULL))}
TIME = torch.tensor(500.0)
NAMES = ("dit", "diffusers-dit", "flux")
Networks = Mapping[str, Callable[[], Any]]  # tiny ones, by name
PAG = {"perturbed_guidance_layers": [1], "perturbed_guidance_stop": 1.0, "perturbed_guidance_scale": 2.0}
WHOLE, ATTENTION, FEED_FORWARD = (
    LayerSkipConfig([1]),
    LayerSkipConfig([1], skip_ff=False),
    LayerSkipConfig([1], skip_attention=False),
)
SLG = {"skip_layer_guidance_stop": 1.0, "skip_layer_guidance_scale": 2.0}


def soft_pag(
    heads: Sequence[Sequence[int]], strength: float, weight: float, scale: float, **interval: float
) -> SoftPAG:
    return SoftPAG(
        heads=heads, strength=strength, perturbed_guidance_scale=weight, guidance_scale=scale, **interval
    )


def test_diffusers_own_hooks_work_on_our_blocks_and_give_the_same(networks: Networks) -> None:
    net = networks["dit"]()
    for guider in (
        PerturbedAttentionGuidance(3.0, **PAG),
        SkipLayerGuidance(3.0, skip_layer_config=WHOLE, **SLG),
        SkipLayerGuidance(3.0, skip_layer_config=ATTENTION, **SLG),
        AutoGuidance(3.0, auto_guidance_config=LayerSkipConfig([1, 2])),
    ):
        torch.testing.assert_close(net.at(guider), by_hooks(net, guider))
    torch.testing.assert_close(
        networks["diffusers-dit"]().at(SkipLayerGuidance(3.0, skip_layer_config=FEED_FORWARD, **SLG)),
        by_hooks(networks["diffusers-dit"](), SkipLayerGuidance(3.0, skip_layer_config=FEED_FORWARD, **SLG)),
    )


@torch.no_grad()
def by_hooks(net: Any, guider: BaseGuidance) -> Tensor:
    """As diffusers' modular pipelines run a guider."""
    guider = copy.deepcopy(guider)  # the hooks write into its LayerSkipConfig
    guider.set_state(1, 3, TIME)
    states = guider.prepare_inputs(dict(LABELS))
    for state in states:
        guider.prepare_models(net.network)
        state.noise_pred = net(net.noise(), TIME, labels=state.labels)
        guider.cleanup_models(net.network)
    return guider(states).pred


@pytest.mark.parametrize("network", NAMES)
def test_perturbed_attention_is_the_values_alone(network: str, networks: Networks) -> None:
    """u + 3 (c - u) + 2 (c - p), p with every map of block 1 at the identity; at s = 1: p + 2 (c - p)."""
    net = networks[network]()
    c, u = (net.alone(labels) for labels in LABELS["labels"])
    weights = SoftPAG(heads=heads_of(net.network, [1])).perturbations(net.network)["pred_cond_skip"]
    assert len(weights) == 1
    p = c - (
        net.at(soft_pag(heads_of(net.network, [1]), 1.0, 1.0, 1.0)) - c
    )  # c + (c - p) the other way round
    torch.testing.assert_close(
        net.at(PerturbedAttentionGuidance(3.0, **PAG)), u + 3 * (c - u) + 2 * (c - p), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        net.at(PerturbedAttentionGuidance(1.0, **PAG)), p + 2 * (c - p), atol=1e-4, rtol=1e-4
    )
    assert net.items == [ITEMS, ITEMS]


def test_skipping_a_block_of_flux_keeps_its_streams_apart(networks: Networks) -> None:
    """Skipped blocks give their own inputs: as if the block's last projections were zero."""
    net = networks["flux"]()
    guider = SkipLayerGuidance(0.0, skip_layer_config=WHOLE, use_original_formulation=True, **SLG)
    found = net.at(guider)
    c = net.alone(LABELS["labels"][0])
    block = net.network.transformer_blocks[1]
    for last in (block.attn.to_out[0], block.attn.to_add_out, block.ff.net[2], block.ff_context.net[2]):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    p = net.alone(LABELS["labels"][0])
    torch.testing.assert_close(found, c + 2 * (c - p), atol=1e-5, rtol=1e-5)


def test_layers_may_be_given_as_numbers(networks: Networks) -> None:
    """diffusers' own hooks fail on them."""
    net = networks["dit"]()
    by_number = SkipLayerGuidance(3.0, skip_layer_guidance_layers=[1], **SLG)
    assert torch.equal(net.at(by_number), net.at(SkipLayerGuidance(3.0, skip_layer_config=WHOLE, **SLG)))
    weak = [AutoGuidance(3.0, auto_guidance_layers=layers, dropout=1.0) for layers in (2, [2])]
    assert torch.equal(net.at(weak[0]), net.at(weak[1]))


def test_dropout_of_a_layer_is_drawn_anew_and_none_is_the_network_itself(networks: Networks) -> None:
    net = networks["dit"]()
    torch.manual_seed(0)
    half = net.at(AutoGuidance(3.0, auto_guidance_layers=[1], dropout=0.5))
    assert not torch.equal(half, net.at(AutoGuidance(3.0, auto_guidance_layers=[1], dropout=0.5)))
    torch.testing.assert_close(
        net.at(AutoGuidance(3.0, auto_guidance_layers=[1], dropout=0.0)), net.at(ClassifierFreeGuidance(3.0))
    )


REFUSED: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "no such block": (
        lambda net: perturbations_of(PerturbedAttentionGuidance(3.0, perturbed_guidance_layers=[4]), net),
        "no block 4 to skip; expected 0 to 3",
    ),
    "no such list": (
        lambda net: perturbations_of(
            SkipLayerGuidance(3.0, skip_layer_config=LayerSkipConfig([0], fqn="layers")), net
        ),
        "DiT has no list of blocks layers",
    ),
    "no blocks": (
        lambda _: perturbations_of(PerturbedAttentionGuidance(3.0, **PAG), nn.Linear(2, 2)),
        "the blocks of Linear cannot be told",
    ),
    "SEG": (
        lambda net: perturbations_of(SmoothedEnergyGuidance(seg_guidance_layers=[1]), net),
        "a way of its own",
    ),
    "LTX-2": (lambda net: perturbations_of(LTX2Guidance(stg_scale=1.0), net), "a way of its own"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_network_lacks_is_refused_by_name(name: str, networks: Networks) -> None:
    attempt, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        attempt(networks["dit"]().network)
