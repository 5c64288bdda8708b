"""Guided runs: the right figures from the right number of calls, with a cache, in threads, and no traces."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    AutoGuidance,
    BaseGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
    PerturbedAttentionGuidance,
    SkipLayerGuidance,
    TangentialClassifierFreeGuidance,
)
from diffusers.hooks import LayerSkipConfig
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling import denoise, guide
from polydit.core.sampling.cache import BlockRange, Cache, Interval, Modules, Newton
from polydit.core.sampling.guidance import Guided, SoftPAG, steps_between

ITEMS, NULL = 2, 10
LABELS = {"labels": (torch.tensor([3, 5]), torch.full((ITEMS,), NULL))}
TIME = torch.tensor(500.0)
NAMES = ("dit", "diffusers-dit", "flux")
Networks = Mapping[str, Callable[[], Any]]  # tiny ones, by name
PAG = {"perturbed_guidance_layers": [1], "perturbed_guidance_stop": 1.0, "perturbed_guidance_scale": 2.0}
WHOLE = LayerSkipConfig([1])
SLG = {"skip_layer_guidance_stop": 1.0, "skip_layer_guidance_scale": 2.0}


def clean(network: nn.Module) -> bool:
    return not any("forward" in module.__dict__ for module in network.modules())


@pytest.mark.parametrize("network", NAMES)
def test_classifier_free_guidance_is_guide_in_one_call(network: str, networks: Networks) -> None:
    net = networks[network]()
    conditional, unconditional = (net.alone(labels) for labels in LABELS["labels"])
    found = net.at(ClassifierFreeGuidance(guidance_scale=3.0))
    assert net.items == [2 * ITEMS]
    torch.testing.assert_close(found, guide(conditional, unconditional, 3.0))
    torch.testing.assert_close(
        net.at(ClassifierFreeGuidance(guidance_scale=2.0, use_original_formulation=True)), found
    )


@pytest.mark.parametrize(("scale", "labels"), [(0.0, 1), (1.0, 0)])
def test_scales_zero_and_one_are_one_call_of_the_network_itself(
    scale: float, labels: int, networks: Networks
) -> None:
    net = networks["dit"]()
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
def test_steps_outside_the_interval_cost_one_call_of_the_items(
    network: str, name: str, networks: Networks
) -> None:
    net, (guider, calls) = networks[network](), GUIDERS[name]
    inside = guider(start=0.4, stop=0.8)
    net.sample(inside)
    # diffusers begins a perturbation a step later than guidance without condition
    late = name in ("pag", "slg")
    expected = [calls - (late and step == 2) if step in (2, 3) else 1 for step in range(5)]
    assert net.guided(inside, 5).calls_per_step == tuple(expected)
    assert len(net.items) == sum(expected)
    doubled = sum(net.items) - ITEMS * len(net.items)
    assert doubled == (0 if name == "auto" else 2 * ITEMS)


@pytest.mark.parametrize("network", NAMES)
def test_the_interval_ends_where_the_network_takes_over(network: str, networks: Networks) -> None:
    net = networks[network]()
    plain = net.alone(LABELS["labels"][0])
    for name, (guider, _) in GUIDERS.items():
        ends = guider(stop=0.67)
        assert torch.equal(net.at(ends, step=2), plain), name
        assert net.items == [ITEMS]
        assert not torch.equal(net.at(ends, step=1), plain), name


def test_other_channels_stay_conditional(networks: Networks) -> None:
    net = networks["dit"]()
    c, u = (net.alone(labels) for labels in LABELS["labels"])
    for scale in (0.0, 3.0):
        with torch.no_grad():
            found = net.guided(ClassifierFreeGuidance(scale), channels=3)(net.noise(), TIME, None)
        torch.testing.assert_close(found[:, :3], guide(c, u, scale)[:, :3])
        torch.testing.assert_close(found[:, 3:], c[:, 3:])


def test_conditions_of_two_lengths_take_two_calls(networks: Networks) -> None:
    """Prompts of another length than the empty one cannot stand in one batch."""
    items: list[tuple[int, int]] = []

    def call(x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        items.append((len(x), text.shape[1]))
        return x + text.mean((1, 2)).reshape(-1, 1, 1, 1)

    conditions = {"text": (torch.ones(ITEMS, 5, 3), torch.zeros(ITEMS, 1, 3))}
    net = networks["dit"]()
    guided = Guided(net.network, call, ClassifierFreeGuidance(3.0), conditions, num_steps=1)
    torch.testing.assert_close(guided(net.noise(), TIME, None), net.noise() + 3.0)
    assert items == [(ITEMS, 5), (ITEMS, 1)]
    assert guided.calls_per_step == (2,)


def test_one_step_one_item_and_self_conditioning(networks: Networks) -> None:
    net, seen = networks["dit"](), []

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


def test_a_run_leaves_nothing_behind_even_if_it_breaks(networks: Networks) -> None:
    net = networks["dit"]()
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


def test_two_threads_sample_one_network(networks: Networks) -> None:
    net = networks["dit"]()
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


def test_guidance_and_a_feature_cache_in_one_run(networks: Networks) -> None:
    net = networks["dit"]()
    soft = soft_pag([(1, 0), (2, 3)], 0.7, 2.0, 3.0)
    plain = net.sample(soft, 8)
    for site in (BlockRange(first=1), Modules()):
        with Cache(Newton(1), site, Interval(every=3)).run(net.network, 8, calls_per_step=2) as run:
            cached = net.sample(soft, 8)
        assert len(run.report.skipped_steps) >= 4
        assert 0.0 < float((cached - plain).norm() / plain.norm()) < 0.3


def test_a_feature_cache_in_a_run_whose_steps_have_one_call_or_two(networks: Networks) -> None:
    """The perturbed network is called in the interval alone, and has a memory of its own there."""
    net = networks["dit"]()
    soft = soft_pag(
        [(1, 0), (2, 3)], 0.7, 2.0, 1.0, perturbed_guidance_start=0.2, perturbed_guidance_stop=0.8
    )
    calls = net.guided(soft, 12).calls_per_step
    assert set(calls) == {1, 2}
    plain = net.sample(soft, 12)
    for site in (BlockRange(first=1), Modules()):
        cache = Cache(Newton(1), site, Interval(every=3))
        net.items.clear()
        with cache.run(net.network, 12, calls_per_step=calls) as run:
            found = net.sample(soft, 12)
        assert len(net.items) == sum(calls) and run.report.num_steps == 12
        # a step is skipped if no call of it was computed: the perturbed network's first one always is
        assert 5 <= len(run.report.skipped_steps) < 12
        assert 0.0 < float((found - plain).norm() / plain.norm()) < 0.3
        with pytest.raises(InputError, match=r"step 13 of a run of 12"), cache.run(net.network, 12):
            net.sample(soft, 12)
    with pytest.raises(InputError, match="as much for each of 12 steps"):
        cache.run(net.network, 12, calls_per_step=calls[:-1])


def test_blocks_that_are_skipped_cannot_be_cached_too(networks: Networks) -> None:
    net = networks["dit"]()
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


REFUSED: dict[str, tuple[Callable[[Any], object], str]] = {
    "NaN scale": (lambda net: net.guided(ClassifierFreeGuidance(math.nan)), "guidance_scale is nan"),
    "infinite scale": (
        lambda net: net.guided(
            PerturbedAttentionGuidance(3.0, **PAG | {"perturbed_guidance_scale": math.inf})
        ),
        "skip_layer_guidance_scale is inf",
    ),
    "NaN in guide": (lambda _: guide(torch.ones(1), torch.zeros(1), math.nan), "the scale is nan"),
    "no steps": (lambda net: net.guided(ClassifierFreeGuidance(3.0), 0), "0 steps"),
    "too few labels": (
        lambda net: net.guided(ClassifierFreeGuidance(3.0))(torch.zeros(3, 4, 8, 8), TIME, None),
        "labels: 2 rows; expected one for each of 3 items",
    ),
    "a run too long": (lambda net: net.at(ClassifierFreeGuidance(3.0), 2, 2), "step 3 of a run of 2"),
    "an interval without steps": (lambda _: steps_between([1.0, 0.5], 0.6, 0.9), "no steps lie between"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_by_name(name: str, networks: Networks) -> None:
    attempt, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        attempt(networks["dit"]())
