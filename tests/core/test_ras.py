"""Region-adaptive sampling: both rules, batches and oblong grids, kept keys and values, and one state for each run."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.models.dit import DiT
from polydit.core.sampling import denoise, guided_model
from polydit.core.sampling.ras import KeptTokens, RegionAdaptive, RegionRule
from polydit.core.sampling.solvers import EulerScheduler, FlowSolver, MidpointScheduler

STEPS = 30


def levels(steps: int = STEPS) -> Tensor:
    scheduler = EulerScheduler()
    scheduler.set_timesteps(steps)
    return scheduler.sigmas


def left_out(rule: RegionRule, velocity: Tensor, patch: tuple[int, ...], steps: int = STEPS) -> Tensor:
    """Which tokens each call after the first leaves out, for a velocity that stays the same."""
    run = RegionAdaptive(lambda x, timestep, active: velocity, levels(steps), patch, rule)
    masks = []
    for _ in range(steps):
        run(velocity, torch.tensor(0.0))
        assert run.cached is not None
        masks.append(run.cached)
    return torch.stack(masks[:-1])


def strips(items: int, channels: int, *cells: int) -> Tensor:
    """Sizes 1 to 4, another order for each item, with a sign that alternates over the channels."""
    generator = torch.Generator().manual_seed(0)
    orders = torch.stack([torch.randperm(math.prod(cells), generator=generator) for _ in range(items)])
    sizes = torch.linspace(1.0, 4.0, math.prod(cells))[orders].reshape(items, 1, *cells)
    signs = torch.tensor([1.0, -1.0]).repeat(channels)[:channels]
    return sizes * signs.reshape(-1, *(1,) * len(cells))


@pytest.mark.parametrize(("rule", "starved"), [("released", 12), ("mended", 0)])
def test_the_released_rule_starves_tokens_and_the_mended_one_does_not(rule: str, starved: int) -> None:
    masks = left_out(RegionRule(rule=rule), strips(1, 4, 8, 12), (2, 2))  # type: ignore[arg-type]
    during = masks[3:]  # call 4 is the first that leaves out
    assert during.sum(2).eq(12).all()
    assert during.all(dim=0).sum() == starved


@pytest.mark.parametrize("high_ratio", [0.0, 0.5, 1.0])
def test_the_mended_rule_takes_from_both_ends_without_starving(high_ratio: float) -> None:
    masks = left_out(RegionRule(high_ratio=high_ratio), strips(3, 4, 8, 12), (2, 2))[3:]
    assert masks.sum(2).eq(12).all()
    assert not masks.all(dim=0).any()


def test_first_choice_is_the_end_of_the_order() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0]])
    never = torch.zeros(1, 5, dtype=torch.long)
    for rule in (RegionRule(), RegionRule(rule="released")):
        assert rule.choose(scores, never, 0, 2).tolist() == [[False, False, False, True, True]]
        assert rule.choose(scores, never, 1, 1).tolist() == [[False, True, False, True, False]]


@pytest.mark.parametrize(("cells", "patch"), [((6, 10), (2, 2)), ((12,), (3,)), ((4, 2, 6), (2, 1, 3))])
@pytest.mark.parametrize("rule", ["released", "mended"])
def test_items_of_a_batch_choose_for_themselves(
    cells: tuple[int, ...], patch: tuple[int, ...], rule: str
) -> None:
    velocity = strips(3, 4, *cells)
    setting = RegionRule(rule=rule, start=1)  # type: ignore[arg-type]
    together = left_out(setting, velocity, patch, 8)
    alone = [left_out(setting, velocity[i : i + 1], patch, 8) for i in range(3)]
    assert torch.equal(together, torch.cat(alone, dim=1))


def test_tokens_left_out_keep_their_velocity_and_the_others_do_not() -> None:
    asked: list[Tensor | None] = []

    def network(x: Tensor, timestep: Tensor, active: Tensor | None) -> Tensor:
        asked.append(active)
        return torch.full_like(x, float(len(asked))) + x

    x = strips(2, 3, 4, 6)
    run = RegionAdaptive(network, levels(3), (2, 2), RegionRule(start=1, reset=(2,)))
    first = run(x, torch.tensor(1000.0))
    cached = run.cached
    second = run(x, torch.tensor(500.0))
    assert cached is not None and cached.sum(1).tolist() == [3, 3]
    wide = cached.unflatten(1, (2, 3)).repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None].expand_as(x)
    assert torch.equal(second[wide], first[wide]) and torch.equal(second[~wide], x[~wide] + 2.0)
    assert asked[0] is None and asked[1] is not None
    assert torch.equal(torch.ones(2, 6).scatter(1, asked[1], 0.0).bool(), cached)
    run(x, torch.tensor(100.0))
    assert asked[2] is None and (run.computed, run.seen) == (6 + 3 + 6, 18)


def network_and_noise() -> tuple[DiT, Tensor, Tensor]:
    torch.manual_seed(0)
    model = DiT(sample_size=(4, 8), width=32, depth=3, heads=2, num_classes=3, learn_sigma=False).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model, torch.randn(2, 4, 4, 8), torch.tensor([0, 2])


@torch.no_grad()
def test_kept_tokens_of_an_unchanged_sample_are_the_networks_own() -> None:
    model, x, labels = network_and_noise()
    timestep = torch.tensor([300.0, 700.0])
    kept, expected = KeptTokens(model), model(x, timestep, labels).sample
    torch.testing.assert_close(kept(x, timestep, labels), expected)
    active = torch.tensor([[0, 3, 5], [1, 2, 7]])
    mask = torch.zeros(2, 8).scatter(1, active, 1.0).unflatten(1, (2, 4))
    wide = mask.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
    torch.testing.assert_close(kept(x, timestep, labels, active), expected * wide)


@torch.no_grad()
def test_kept_keys_and_values_are_those_last_computed() -> None:
    """A token that is left out is still seen as it was: what it becomes changes nothing for the others."""
    model, x, labels = network_and_noise()
    timestep, active = torch.tensor([300.0, 700.0]), torch.arange(4).expand(2, 4)  # the upper half
    changed = x.clone()
    changed[:, :, 2:] += 1.0
    found = []
    for later in (x, changed):
        kept = KeptTokens(model)
        kept(x, timestep, labels)
        found.append(kept(later, timestep, labels, active))
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(
        model(changed, timestep, labels).sample[:, :, :2], found[1][:, :, :2], atol=1e-3
    )


def sample(rule: RegionRule, steps: int = 10, solver: type[FlowSolver] = EulerScheduler) -> Tensor:
    """Guided sampling with a network that keeps keys and values."""
    model, noise, labels = network_and_noise()
    scheduler, kept = solver(), KeptTokens(model)
    scheduler.set_timesteps(steps)
    both = torch.cat([labels, torch.full_like(labels, 3)])

    def network(x: Tensor, timestep: Tensor, active: Tensor | None) -> Tensor:
        return guided_model(
            lambda doubled: kept(doubled, timestep.expand(len(doubled)), both, active), x, 1.5
        )

    return denoise(RegionAdaptive(network, scheduler.sigmas, (2, 2), rule), noise, scheduler)


def test_samples_come_near_those_of_full_steps() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        full = sample(RegionRule(sample_ratio=1.0))
    errors = [
        float((sample(RegionRule(sample_ratio=ratio)) - full).norm() / full.norm())
        for ratio in (0.75, 0.5, 0.25)
    ]
    assert 0.0 < errors[0] < errors[1] < errors[2] < 0.3, errors


def test_four_equal_runs_and_other_solvers() -> None:
    first = sample(RegionRule())
    assert all(torch.equal(sample(RegionRule()), first) for _ in range(3))
    assert sample(RegionRule(), 6, MidpointScheduler).isfinite().all()


def test_nothing_left_out_is_said_and_is_plain_sampling() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(3)
    x = strips(1, 4, 4, 4)
    run = RegionAdaptive(lambda x, timestep, active: 0.1 * x, scheduler.sigmas, (2, 2))
    with pytest.warns(UserWarning, match="leaves nothing out in 3 steps of 4 tokens"):
        found = denoise(run, x, scheduler)
    scheduler.set_timesteps(3)
    assert torch.equal(found, denoise(lambda x, timestep, previous: 0.1 * x, x, scheduler))
    with pytest.raises(InputError, match="has finished its run"):
        run(x, torch.tensor(0.0))


def test_what_it_cannot_serve_is_named() -> None:
    def network(x: Tensor, timestep: Tensor, active: Tensor | None) -> Tensor:
        return x

    run = RegionAdaptive(network, levels(), (2, 2))
    with pytest.raises(InputError, match="does not divide the cells"):
        run(torch.zeros(1, 4, 5, 4), torch.tensor(0.0))
    with pytest.raises(InputError, match="no standard deviation"):
        run(torch.zeros(1, 1, 4, 4), torch.tensor(0.0))
    windows = DiT(sample_size=8, width=32, depth=2, heads=2, window=2, window_blocks=(1,))
    with pytest.raises(InputError, match="block 1"):
        KeptTokens(windows)
    model, x, labels = network_and_noise()
    with pytest.raises(InputError, match="before all of them"):
        KeptTokens(model)(x, torch.ones(2), labels, torch.tensor([[0], [1]]))


@pytest.mark.parametrize("wrong", [{"sample_ratio": 0.0}, {"high_ratio": 1.5}, {"start": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        RegionRule(**wrong)  # type: ignore[arg-type]


def test_the_released_rule_refuses_what_its_release_does_wrong() -> None:
    with pytest.raises(InputError, match="leaves out every token"):
        RegionRule(rule="released", high_ratio=0.0).left_out(5, 16)
