"""Caches at work on networks of ours and of diffusers: what they skip, what they leave, and what they refuse."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from diffusers import DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.models import DiT
from polydit.core.sampling import denoise
from polydit.core.sampling.cache import (
    BlockRange,
    Cache,
    CacheRun,
    CacheWarning,
    Clock,
    FirstBlock,
    Interval,
    Modules,
    Newton,
    Output,
    Reuse,
    RoutedModules,
    RouterTraining,
    Table,
    Taylor,
    find_blocks,
    optimal_sharing,
    shared_states,
    train_router,
)

STEPS = 12
CACHES = {
    "taylorseer": Cache(Taylor(2), Modules(), Interval(every=3)),
    "newton-modules": Cache(Newton(2), Modules(), Interval(every=3)),
    "newton-tail": Cache(Newton(2), BlockRange(first=1), Interval(every=3)),
    "newton-sigma": Cache(Newton(2, "sigma"), BlockRange(first=1), Interval(every=3)),
    "newton-log-snr": Cache(Newton(1, "log_snr"), BlockRange(first=1), Interval(every=3)),
    "delta": Cache(Reuse(), BlockRange(first=0, stop=2), Interval(every=2)),
    "last-block": Cache(Taylor(1), BlockRange(first=0, residual=False), Interval(every=3)),
    "output": Cache(Newton(1), Output(), Interval(every=3)),
    "first-block": Cache(Reuse(), BlockRange(first=1), FirstBlock(threshold=0.3)),
    "gate": Cache(
        Taylor(1),
        BlockRange(first=1, residual=False),
        FirstBlock(threshold=0.2, forecaster=Taylor(1), residual=False, warm_up=3, cool_down=1),
    ),
    "table": Cache(Newton(1), Modules(first=1), Table.of_steps([0, 1, 2, 5, 8, 11], STEPS)),
}


def filled(network: nn.Module, std: float = 0.06) -> nn.Module:
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=std)
    return network.eval()


def our_dit() -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], tuple[int, ...]]:
    network = filled(
        DiT(sample_size=8, width=32, depth=4, heads=4, num_classes=10, learn_sigma=False), std=0.12
    )
    # SiT's clock of 0..1: random weights give features that are smooth in it, as trained ones are
    return network, lambda x, t: network(x, t / 1000, torch.full((len(x),), 3)).sample, (4, 8, 8)


def diffusers_dit() -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], tuple[int, ...]]:
    network = filled(
        DiTTransformer2DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            num_layers=4,
            sample_size=8,
            num_embeds_ada_norm=10,
        )
    )
    return network, lambda x, t: network(x, t.long(), torch.full((len(x),), 3)).sample, (4, 8, 8)


def flux() -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], tuple[int, ...]]:
    network = filled(
        FluxTransformer2DModel(
            in_channels=4,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
        )
    )
    text = torch.randn(6, 32, generator=torch.Generator().manual_seed(7))

    def call(x: Tensor, t: Tensor) -> Tensor:
        b = len(x)
        return network(
            hidden_states=x,
            encoder_hidden_states=text.expand(b, -1, -1),
            pooled_projections=text[:1].expand(b, -1),
            timestep=t / 1000,
            img_ids=torch.zeros(16, 3),
            txt_ids=torch.zeros(6, 3),
        ).sample

    return network, call, (16, 4)


NETWORKS = {"dit": our_dit, "diffusers-dit": diffusers_dit, "flux": flux}


class Sampler:
    """A denoising run of a tiny network that counts how often each block is computed."""

    def __init__(self, name: str) -> None:
        self.network, self.call, self.shape = NETWORKS[name]()
        self.computed = 0
        self.scheduler = FlowMatchEulerDiscreteScheduler()
        self.scheduler.set_timesteps(STEPS)
        self.clock = Clock.flow(self.scheduler.sigmas[:STEPS].tolist())
        for block in find_blocks(self.network):  # a linear layer that only a computed block reaches
            next(
                m for m in reversed(list(block.modules())) if isinstance(m, nn.Linear)
            ).register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.computed += 1

    def __call__(
        self, cache: Cache | None = None, items: int = 2, seed: int = 1
    ) -> tuple[Tensor, CacheRun | None]:
        self.computed = 0
        self.scheduler.set_timesteps(STEPS)
        x = torch.randn(items, *self.shape, generator=torch.Generator().manual_seed(seed))
        run: AbstractContextManager[CacheRun | None] = (
            cache.run(self.network, self.clock) if cache else nullcontext()
        )
        with run as active:
            return denoise(lambda x, t, _: self.call(x, t.expand(len(x))), x, self.scheduler), active


def clean(network: nn.Module) -> bool:
    """Nothing of a cache is left on any module."""
    return not any("forward" in module.__dict__ for module in network.modules())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", CACHES)
def test_runs_skip_work_repeat_exactly_and_leave_nothing(network: str, name: str) -> None:
    sampler, cache = Sampler(network), CACHES[name]
    plain, _ = sampler()
    all_blocks = sampler.computed
    cached = []
    for _ in range(4):
        result, run = sampler(cache)
        cached.append(result)
        assert clean(sampler.network)
        assert run is not None
        assert run.report.skipped_steps
        assert run.report.num_steps == STEPS
        assert run.report.estimated_error is not None
    assert sampler.computed < all_blocks
    assert all(torch.equal(other, cached[0]) for other in cached[1:])
    difference = float((cached[0] - plain).norm() / plain.norm())
    assert 0.0 < difference < 0.2
    assert torch.equal(sampler()[0], plain)


def test_every_step_full_is_the_network_itself_and_says_so() -> None:
    sampler = Sampler("dit")
    with pytest.warns(CacheWarning, match="all 12 steps were computed under Interval"):
        result, _ = sampler(Cache(policy=Interval(every=1)))
    assert torch.equal(result, sampler()[0])


def test_a_tail_whose_residual_is_kept_sees_the_new_input() -> None:
    """Δ of blocks 1.. reused: the output is block 0's on the new input, plus what the tail added before."""
    network, call, _ = our_dit()
    tails: list[Tensor] = []
    network.final.register_forward_pre_hook(lambda _, inputs: tails.append(inputs[0]))
    heads: list[Tensor] = []
    network.blocks[0].register_forward_hook(lambda *triple: heads.append(triple[2]))
    x, t = torch.randn(2, 2, 4, 8, 8), torch.full((2,), 500.0)
    with torch.no_grad(), Cache(Reuse(), BlockRange(first=1), Interval(every=2, warm_up=1)).run(network, 2):
        call(x[0], t)
        call(x[1], t)
    torch.testing.assert_close(tails[1], heads[1] + (tails[0] - heads[0]))


def test_the_batch_may_change_between_runs_and_within_one() -> None:
    sampler, cache = Sampler("dit"), CACHES["newton-tail"]
    alone = sampler(cache, items=1)[0]
    sampler(cache, items=5)
    assert torch.equal(sampler(cache, items=1)[0], alone)
    x, t = torch.randn(4, 4, 8, 8), torch.full((4,), 500.0)
    with torch.no_grad(), cache.run(sampler.network, STEPS) as run:
        for step in range(STEPS):
            part = slice(0, 2 if step > 5 else 4)  # guidance that ends after step 5
            assert sampler.call(x[part], t[part]).shape[0] == len(x[part])
    assert 6 in run.report.full_steps
    assert run.report.skipped_steps == (2, 3, 5, 8, 9, 11)


def test_two_calls_per_step_do_not_mix() -> None:
    sampler, cache = Sampler("dit"), CACHES["newton-tail"]
    x, t = torch.randn(2, 1, 4, 8, 8), torch.full((1,), 500.0)
    steps = torch.linspace(0, 0.2, STEPS)

    def outputs(branch: int) -> list[Tensor]:
        with cache.run(sampler.network, STEPS):
            return [sampler.call(x[branch] + step, t) for step in steps]

    with torch.no_grad():
        apart = [outputs(0), outputs(1)]
        with cache.run(sampler.network, STEPS, calls_per_step=2) as run:
            together = [[sampler.call(x[branch] + step, t) for branch in (0, 1)] for step in steps]
    for branch in (0, 1):
        assert all(torch.equal(a, pair[branch]) for a, pair in zip(apart[branch], together, strict=True))
    assert run.report.full_steps == (0, 1, 4, 7, 10)


def test_two_runs_in_two_threads_do_not_mix() -> None:
    sampler = Sampler("dit")
    caches = {name: CACHES[name] for name in ("newton-tail", "taylorseer", "first-block")}
    alone = {name: sampler(cache, seed=3)[0] for name, cache in caches.items()}
    alone["none"] = sampler(seed=3)[0]
    start, found = threading.Barrier(4), {}

    def work(name: str) -> None:
        own = Sampler.__new__(Sampler)  # the same network, another scheduler
        own.__dict__ = {**sampler.__dict__, "scheduler": FlowMatchEulerDiscreteScheduler()}
        start.wait()
        found[name] = own(caches.get(name), seed=3)[0]

    threads = [threading.Thread(target=work, args=(name,)) for name in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[name], alone[name]) for name in alone)
    assert clean(sampler.network)


def test_an_exception_in_a_run_leaves_nothing() -> None:
    sampler, cache = Sampler("dit"), CACHES["newton-tail"]
    expected = sampler(cache)[0]
    x, t = torch.randn(1, 4, 8, 8), torch.full((1,), 500.0)
    with pytest.raises(RuntimeError), torch.no_grad(), cache.run(sampler.network, STEPS):
        for _ in range(4):
            sampler.call(x, t)
        sampler.call(x[:, :3], t)  # too few channels
    assert clean(sampler.network)
    assert torch.equal(sampler(cache)[0], expected)


def test_forwards_of_other_hooks_come_back() -> None:
    sampler = Sampler("dit")
    block = sampler.network.blocks[1]
    own = block.forward
    block.forward = lambda *args, **kwargs: own(*args, **kwargs)
    replaced = block.forward
    sampler(CACHES["newton-tail"])
    assert block.__dict__["forward"] is replaced


def test_an_encoder_is_shared_as_ddt_does() -> None:
    sampler = Sampler("dit")
    states: list[Tensor] = []
    hook = sampler.network.blocks[1].register_forward_hook(lambda *triple: states.append(triple[2]))
    recorded = shared_states(sampler.network, 0.5, sampler)
    hook.remove()
    assert torch.equal(recorded, torch.stack(states)) and clean(sampler.network)
    table = Table.of_steps(optimal_sharing(recorded, every=3), STEPS)
    _, run = sampler(Cache(Reuse(), BlockRange(first=0, stop=2, residual=False), table))
    assert run is not None
    assert len(run.report.full_steps) == STEPS // 3
    assert str(run.report).startswith("8 of 12 steps skipped, forecasts off by")


@pytest.mark.parametrize("network", ["diffusers-dit", "flux"])
def test_a_router_is_trained_on_networks_of_diffusers_too(network: str) -> None:
    sampler = Sampler(network)
    training = RouterTraining(iterations=1, beta=1.0, rate=8.0)  # so much that all modules are reused
    table = train_router(sampler.network, lambda: list(sampler()[0]), training)
    assert clean(sampler.network) and table.reused == pytest.approx((STEPS - 1) / STEPS)
    _, run = sampler(Cache(Reuse(), RoutedModules(table=table), Table(table.full)))
    assert run is not None and len(run.report.skipped_steps) == STEPS - 1


def test_states_of_different_shapes_cannot_be_shared() -> None:
    sampler = Sampler("dit")
    with pytest.raises(InputError, match="DiT was called for 2 shapes in a run"):
        shared_states(sampler.network, 0.5, lambda: (sampler(items=1), sampler(items=2)))
    with pytest.raises(InputError, match=r"1\.5 is no share"):
        shared_states(sampler.network, 1.5, sampler)


@pytest.mark.parametrize(
    ("cache", "clock", "problem"),
    [
        (Cache(policy=Table.of_steps([0, 2], 4)), 5, "table is for 4 steps and the run has 5"),
        (Cache(Newton(2, "sigma")), 5, "needs the sigma of every step"),
        (Cache(site=BlockRange(first=4)), 5, "no blocks from 4 to the end"),
        (
            Cache(site=Modules(names=("attention",))),
            5,
            "have no attention.*Name modules that they have: .*attn",
        ),
        (Cache(site=BlockRange(first=0), policy=FirstBlock()), 5, "the first block decides"),
        (Cache(), 0, "0 steps"),
    ],
)
def test_what_a_cache_cannot_do_is_refused_before_the_run(cache: Cache, clock: int, problem: str) -> None:
    network = our_dit()[0]
    with pytest.raises(InputError, match=problem):
        cache.run(network, clock)
    assert clean(network)


def test_networks_without_blocks_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"Sequential has no blocks that could be cached.*transformer_blocks"
    ):
        Cache().run(nn.Sequential(nn.Linear(2, 2)), 5)
    twice = nn.ModuleDict({"one": our_dit()[0], "two": our_dit()[0]})
    with pytest.raises(InputError, match=r"blocks in several parts.*one, two"):
        Cache().run(twice, 5)


def test_misuse_within_a_run_is_refused() -> None:
    network, call, _ = our_dit()
    x, t = torch.randn(1, 4, 8, 8), torch.full((1,), 500.0)
    with torch.no_grad():
        with pytest.raises(InputError, match="called for step 4 of a run of 3"), Cache().run(network, 3):
            for _ in range(4):
                call(x, t)
        with Cache().run(network, 3) as run:
            with pytest.raises(InputError, match="in a cached run already"), Cache().run(network, 3):
                pass
            for _ in range(3):
                call(x, t)
        with pytest.raises(InputError, match="serves one sampling"), run:
            pass
    with pytest.raises(InputError, match="cannot be differentiated"), Cache().run(network, 3):
        call(x, t)


def test_a_network_that_is_never_called_is_told() -> None:
    network = our_dit()[0]
    with pytest.warns(CacheWarning, match="DiT was never called"), Cache().run(network, 5):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyError), Cache().run(network, 5):
            raise KeyError  # an error speaks for itself


def test_newton_beats_the_published_series_at_equal_full_steps() -> None:
    sampler = Sampler("dit")
    plain, _ = sampler()

    def error(cache: Cache) -> float:
        return float((sampler(cache)[0] - plain).norm())

    assert error(CACHES["newton-modules"]) < 0.5 * error(CACHES["taylorseer"])
