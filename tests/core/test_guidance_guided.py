"""diffusers' guiders drive our networks and diffusers' own: the right figures, the right number of calls, no traces."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Sequence

import pytest
import torch
from diffusers import DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    AutoGuidance,
    BaseGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
    LTX2Guidance,
    PerturbedAttentionGuidance,
    SkipLayerGuidance,
    SmoothedEnergyGuidance,
    TangentialClassifierFreeGuidance,
)
from diffusers.hooks import LayerSkipConfig
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.models import DiT
from polydit.core.sampling import denoise, guide
from polydit.core.sampling.cache import BlockRange, Cache, Interval, Modules, Newton
from polydit.core.sampling.guidance import Guided, SoftPAG, heads_of, steps_between

ITEMS, NULL = 2, 10
LABELS = {"labels": (torch.tensor([3, 5]), torch.full((ITEMS,), NULL))}
TIME = torch.tensor(500.0)


class Net:
    """A tiny network of random weights, how it is called, and how many items each call had."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...], call: Callable[..., Tensor]) -> None:
        torch.manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.12)
        self.network, self.shape, self._call = network.eval(), shape, call
        self.items: list[int] = []

    def __call__(self, x: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        self.items.append(len(x))
        return self._call(self.network, x, timestep.expand(len(x)), **conditions)

    def noise(self, items: int = ITEMS) -> Tensor:
        return torch.randn(items, *self.shape, generator=torch.Generator().manual_seed(1))

    def guided(self, guider: BaseGuidance, num_steps: int = 1, channels: int | None = None) -> Guided:
        return Guided(self.network, self, guider, LABELS, num_steps=num_steps, channels=channels)

    @torch.no_grad()
    def at(self, guider: BaseGuidance, step: int = 1, num_steps: int = 3) -> Tensor:
        """One prediction, in the middle of a run."""
        guided = self.guided(guider, num_steps)
        for _ in range(step):
            guided(self.noise(), TIME, None)
        self.items.clear()
        return guided(self.noise(), TIME, None)

    @torch.no_grad()
    def alone(self, labels: Tensor) -> Tensor:
        return self(self.noise(), TIME, labels=labels)

    def sample(self, guider: BaseGuidance, num_steps: int = 5, seed: int = 1) -> Tensor:
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(num_steps)
        noise = torch.randn(ITEMS, *self.shape, generator=torch.Generator().manual_seed(seed))
        return denoise(self.guided(guider, num_steps), noise, scheduler)


def our_dit() -> Net:
    network = DiT(sample_size=8, width=32, depth=4, heads=4, num_classes=NULL, learn_sigma=False)
    return Net(network, (4, 8, 8), lambda net, x, t, labels: net(x, t / 1000, labels).sample)


def diffusers_dit() -> Net:
    network = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        sample_size=8,
        num_embeds_ada_norm=NULL,
    )
    return Net(network, (4, 8, 8), lambda net, x, t, labels: net(x, t.long(), labels).sample)


def flux() -> Net:
    network = FluxTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    texts = torch.randn(NULL + 1, 6, 32, generator=torch.Generator().manual_seed(7))

    def call(net: nn.Module, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return net(
            hidden_states=x,
            encoder_hidden_states=texts[labels],
            pooled_projections=texts[labels, 0],
            timestep=t / 1000,
            img_ids=torch.zeros(16, 3),
            txt_ids=torch.zeros(6, 3),
        ).sample

    return Net(network, (16, 4), call)


NETWORKS = {"dit": our_dit, "diffusers-dit": diffusers_dit, "flux": flux}
PAG = {"perturbed_guidance_layers": [1], "perturbed_guidance_stop": 1.0, "perturbed_guidance_scale": 2.0}
WHOLE, ATTENTION, FEED_FORWARD = (
    LayerSkipConfig([1]),
    LayerSkipConfig([1], skip_ff=False),
    LayerSkipConfig([1], skip_attention=False),
)
SLG = {"skip_layer_guidance_stop": 1.0, "skip_layer_guidance_scale": 2.0}


def clean(network: nn.Module) -> bool:
    return not any("forward" in module.__dict__ for module in network.modules())


@pytest.mark.parametrize("network", NETWORKS)
def test_classifier_free_guidance_is_guide_in_one_call(network: str) -> None:
    net = NETWORKS[network]()
    conditional, unconditional = (net.alone(labels) for labels in LABELS["labels"])
    found = net.at(ClassifierFreeGuidance(guidance_scale=3.0))
    assert net.items == [2 * ITEMS]
    torch.testing.assert_close(found, guide(conditional, unconditional, 3.0))
    torch.testing.assert_close(
        net.at(ClassifierFreeGuidance(guidance_scale=2.0, use_original_formulation=True)), found
    )


@pytest.mark.parametrize(("scale", "labels"), [(0.0, 1), (1.0, 0)])
def test_scales_zero_and_one_are_one_call_of_the_network_itself(scale: float, labels: int) -> None:
    net = our_dit()
    found = net.at(ClassifierFreeGuidance(guidance_scale=scale))
    assert net.items == [ITEMS]
    assert torch.equal(found, net.alone(LABELS["labels"][labels]))
    # with a use for the conditional prediction, scale 0 has it, and the figure is the same
    rescaled = net.at(ClassifierFreeGuidance(guidance_scale=scale, guidance_rescale=1e-9))
    assert net.items == [2 * ITEMS if scale == 0.0 else ITEMS]
    torch.testing.assert_close(rescaled, found)


GUIDERS: dict[str, tuple[Callable[..., BaseGuidance], int]] = {
    "cfg": (lambda **k: ClassifierFreeGuidance(3.0, **k), 1),
    "apg": (lambda **k: AdaptiveProjectedGuidance(3.0, adaptive_projected_guidance_momentum=-0.5, **k), 1),
    "zero-star": (lambda **k: ClassifierFreeZeroStarGuidance(3.0, **k), 1),
    "tangential": (lambda **k: TangentialClassifierFreeGuidance(3.0, **k), 1),
    "auto": (lambda **k: AutoGuidance(3.0, auto_guidance_config=LayerSkipConfig([1]), **k), 2),
    "pag": (lambda **k: PerturbedAttentionGuidance(3.0, **(PAG | _renamed("perturbed", k)), **k), 2),
    "slg": (
        lambda **k: SkipLayerGuidance(3.0, skip_layer_config=WHOLE, **(SLG | _renamed("skip_layer", k)), **k),
        2,
    ),
    "soft-pag": (lambda **k: soft_pag([(1, 0)], 0.5, 2.0, 3.0, **_renamed("perturbed", k), **k), 2),
}


def soft_pag(
    heads: Sequence[Sequence[int]], strength: float, weight: float, scale: float, **interval: float
) -> SoftPAG:
    return SoftPAG(
        heads=heads, strength=strength, perturbed_guidance_scale=weight, guidance_scale=scale, **interval
    )


def _renamed(prefix: str, interval: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_guidance_{name}": value for name, value in interval.items()}


@pytest.mark.parametrize(("network", "name"), [*(("dit", name) for name in GUIDERS), ("flux", "pag")])
def test_steps_outside_the_interval_cost_one_call_of_the_items(network: str, name: str) -> None:
    net, (guider, calls) = NETWORKS[network](), GUIDERS[name]
    inside = guider(start=0.4, stop=0.8)
    net.sample(inside)
    # diffusers begins a perturbation a step later than guidance without condition
    late = name in ("pag", "slg")
    expected = [calls - (late and step == 2) if step in (2, 3) else 1 for step in range(5)]
    assert net.guided(inside, 5).calls_per_step == tuple(expected)
    assert len(net.items) == sum(expected)
    doubled = sum(net.items) - ITEMS * len(net.items)
    assert doubled == (0 if name == "auto" else 2 * ITEMS)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_interval_ends_where_the_network_takes_over(network: str) -> None:
    net = NETWORKS[network]()
    plain = net.alone(LABELS["labels"][0])
    for name, (guider, _) in GUIDERS.items():
        ends = guider(stop=0.67)
        assert torch.equal(net.at(ends, step=2), plain), name
        assert net.items == [ITEMS]
        assert not torch.equal(net.at(ends, step=1), plain), name


def test_diffusers_own_hooks_work_on_our_blocks_and_give_the_same() -> None:
    net = our_dit()
    for guider in (
        PerturbedAttentionGuidance(3.0, **PAG),
        SkipLayerGuidance(3.0, skip_layer_config=WHOLE, **SLG),
        SkipLayerGuidance(3.0, skip_layer_config=ATTENTION, **SLG),
        AutoGuidance(3.0, auto_guidance_config=LayerSkipConfig([1, 2])),
    ):
        torch.testing.assert_close(net.at(guider), by_hooks(net, guider))
    torch.testing.assert_close(
        diffusers_dit().at(SkipLayerGuidance(3.0, skip_layer_config=FEED_FORWARD, **SLG)),
        by_hooks(diffusers_dit(), SkipLayerGuidance(3.0, skip_layer_config=FEED_FORWARD, **SLG)),
    )


@torch.no_grad()
def by_hooks(net: Net, guider: BaseGuidance) -> Tensor:
    """As diffusers' modular pipelines run a guider."""
    guider = copy.deepcopy(guider)  # the hooks write into its LayerSkipConfig
    guider.set_state(1, 3, TIME)
    states = guider.prepare_inputs(dict(LABELS))
    for state in states:
        guider.prepare_models(net.network)
        state.noise_pred = net(net.noise(), TIME, labels=state.labels)
        guider.cleanup_models(net.network)
    return guider(states).pred


@pytest.mark.parametrize("network", NETWORKS)
def test_perturbed_attention_is_the_values_alone(network: str) -> None:
    """u + 3 (c - u) + 2 (c - p), p with every map of block 1 at the identity; at s = 1: p + 2 (c - p)."""
    net = NETWORKS[network]()
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


def test_skipping_a_block_of_flux_keeps_its_streams_apart() -> None:
    """Skipped blocks give their own inputs: as if the block's last projections were zero."""
    net = flux()
    guider = SkipLayerGuidance(0.0, skip_layer_config=WHOLE, use_original_formulation=True, **SLG)
    found = net.at(guider)
    c = net.alone(LABELS["labels"][0])
    block = net.network.transformer_blocks[1]
    for last in (block.attn.to_out[0], block.attn.to_add_out, block.ff.net[2], block.ff_context.net[2]):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    p = net.alone(LABELS["labels"][0])
    torch.testing.assert_close(found, c + 2 * (c - p), atol=1e-5, rtol=1e-5)


def test_other_channels_stay_conditional() -> None:
    net = our_dit()
    c, u = (net.alone(labels) for labels in LABELS["labels"])
    for scale in (0.0, 3.0):
        with torch.no_grad():
            found = net.guided(ClassifierFreeGuidance(scale), channels=3)(net.noise(), TIME, None)
        torch.testing.assert_close(found[:, :3], guide(c, u, scale)[:, :3])
        torch.testing.assert_close(found[:, 3:], c[:, 3:])


def test_conditions_of_two_lengths_take_two_calls() -> None:
    """Prompts of another length than the empty one cannot stand in one batch."""
    items: list[tuple[int, int]] = []

    def call(x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        items.append((len(x), text.shape[1]))
        return x + text.mean((1, 2)).reshape(-1, 1, 1, 1)

    conditions = {"text": (torch.ones(ITEMS, 5, 3), torch.zeros(ITEMS, 1, 3))}
    net = our_dit()
    guided = Guided(net.network, call, ClassifierFreeGuidance(3.0), conditions, num_steps=1)
    torch.testing.assert_close(guided(net.noise(), TIME, None), net.noise() + 3.0)
    assert items == [(ITEMS, 5), (ITEMS, 1)]
    assert guided.calls_per_step == (2,)


def test_one_step_one_item_and_self_conditioning() -> None:
    net, seen = our_dit(), []

    def call(x: Tensor, timestep: Tensor, labels: Tensor, previous: Tensor | None = None) -> Tensor:
        seen.append(None if previous is None else len(previous))
        return net(x, timestep, labels=labels)

    conditions = {"labels": (torch.tensor([3]), torch.tensor([NULL]))}
    for guider in (factory() for factory, _ in GUIDERS.values()):
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(1)
        guided = Guided(net.network, call, guider, conditions, num_steps=2)
        found = denoise(guided, net.noise(1), scheduler, self_condition=True, finish_with_prediction=True)
        assert found.isfinite().all()
    assert seen[:2] == [None, 2]


def test_a_run_leaves_nothing_behind_even_if_it_breaks() -> None:
    net = our_dit()
    for name in ("apg", "slg", "soft-pag"):
        guider = GUIDERS[name][0]()
        first = net.sample(guider)
        state = repr(guider)
        broken = net.network.blocks[2].mlp.register_forward_pre_hook(_explode)
        with pytest.raises(ZeroDivisionError):
            net.sample(guider)
        broken.remove()
        assert clean(net.network)
        assert torch.equal(net.sample(guider), first)
        assert repr(guider) == state


def _explode(*_: object) -> None:
    raise ZeroDivisionError


def test_two_threads_sample_one_network() -> None:
    net = our_dit()
    names = ("pag", "slg", "cfg", "soft-pag")
    alone = {name: net.sample(GUIDERS[name][0](), seed=index) for index, name in enumerate(names)}
    together: dict[str, Tensor] = {}

    def run(index: int, name: str) -> None:
        together[name] = net.sample(GUIDERS[name][0](), seed=index)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(together[name], alone[name]) for name in names)
    assert clean(net.network)


def test_guidance_and_a_feature_cache_in_one_run() -> None:
    net = our_dit()
    soft = soft_pag([(1, 0), (2, 3)], 0.7, 2.0, 3.0)
    plain = net.sample(soft, 8)
    for site in (BlockRange(first=1), Modules()):
        with Cache(Newton(1), site, Interval(every=3)).run(net.network, 8, calls_per_step=2) as run:
            cached = net.sample(soft, 8)
        assert len(run.report.skipped_steps) >= 4
        assert 0.0 < float((cached - plain).norm() / plain.norm()) < 0.3
    with (
        pytest.raises(InputError, match="skipped by the guidance and kept by a cache"),
        Cache(Newton(1), BlockRange(first=1), Interval(every=3)).run(net.network, 8, calls_per_step=2),
    ):
        net.sample(AutoGuidance(3.0, auto_guidance_config=WHOLE), 8)


def test_an_interval_of_noise_levels_is_exact_for_every_number_of_steps() -> None:
    for steps in (1, 2, 7, 10, 29, 50):
        sigmas = torch.linspace(1.0, 1.0 / steps, steps).tolist()
        for low, high in ((0.0, 1.0), (0.2, 1.0), (0.0, 0.61), (0.3, 0.75)):
            inside = [index for index, sigma in enumerate(sigmas) if low < sigma <= high]
            if not inside:
                with pytest.raises(InputError, match="no steps lie between"):
                    steps_between(sigmas, low, high)
                continue
            guider = ClassifierFreeGuidance(3.0, **steps_between(sigmas, low, high)._asdict())
            guided = []
            for step in range(steps):
                guider.set_state(step, steps, None)
                guided += [step] * (guider.num_conditions == 2)
            assert guided == inside


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "NaN scale": (lambda: our_dit().guided(ClassifierFreeGuidance(math.nan)), "guidance_scale is nan"),
    "infinite scale": (
        lambda: our_dit().guided(
            PerturbedAttentionGuidance(3.0, **PAG | {"perturbed_guidance_scale": math.inf})
        ),
        "skip_layer_guidance_scale is inf",
    ),
    "NaN in guide": (lambda: guide(torch.ones(1), torch.zeros(1), math.nan), "the scale is nan"),
    "no steps": (lambda: our_dit().guided(ClassifierFreeGuidance(3.0), 0), "0 steps"),
    "no such block": (
        lambda: our_dit().guided(PerturbedAttentionGuidance(3.0, perturbed_guidance_layers=[4])),
        "no block 4 to skip; expected 0 to 3",
    ),
    "no such list": (
        lambda: our_dit().guided(
            SkipLayerGuidance(3.0, skip_layer_config=LayerSkipConfig([0], fqn="layers"))
        ),
        "DiT has no list of blocks layers",
    ),
    "no blocks": (
        lambda: Guided(nn.Linear(2, 2), torch.add, PerturbedAttentionGuidance(3.0, **PAG), {}, num_steps=1),
        "the blocks of Linear cannot be told",
    ),
    "SEG": (lambda: our_dit().guided(SmoothedEnergyGuidance(seg_guidance_layers=[1])), "a way of its own"),
    "LTX-2": (lambda: our_dit().guided(LTX2Guidance(stg_scale=1.0)), "a way of its own"),
    "too few labels": (
        lambda: our_dit().guided(ClassifierFreeGuidance(3.0))(torch.zeros(3, 4, 8, 8), TIME, None),
        "labels: 2 rows; expected one for each of 3 items",
    ),
    "a run too long": (lambda: our_dit().at(ClassifierFreeGuidance(3.0), 2, 2), "step 3 of a run of 2"),
    "an interval without steps": (lambda: steps_between([1.0, 0.5], 0.6, 0.9), "no steps lie between"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_by_name(name: str) -> None:
    attempt, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        attempt()


def test_layers_may_be_given_as_numbers() -> None:
    """diffusers' own hooks fail on them."""
    net = our_dit()
    by_number = SkipLayerGuidance(3.0, skip_layer_guidance_layers=[1], **SLG)
    assert torch.equal(net.at(by_number), net.at(SkipLayerGuidance(3.0, skip_layer_config=WHOLE, **SLG)))
    weak = [AutoGuidance(3.0, auto_guidance_layers=layers, dropout=1.0) for layers in (2, [2])]
    assert torch.equal(net.at(weak[0]), net.at(weak[1]))


def test_dropout_of_a_layer_is_drawn_anew_and_none_is_the_network_itself() -> None:
    net = our_dit()
    torch.manual_seed(0)
    half = net.at(AutoGuidance(3.0, auto_guidance_layers=[1], dropout=0.5))
    assert not torch.equal(half, net.at(AutoGuidance(3.0, auto_guidance_layers=[1], dropout=0.5)))
    torch.testing.assert_close(
        net.at(AutoGuidance(3.0, auto_guidance_layers=[1], dropout=0.0)), net.at(ClassifierFreeGuidance(3.0))
    )
