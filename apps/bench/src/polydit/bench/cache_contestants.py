"""Who is compared: our caches, diffusers' own, cache-dit's, and simply fewer steps, with Euler's or a better solver.

What keeps its state on the network works on a copy of it, and is reset before every run.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import FirstBlockCacheConfig, TaylorSeerCacheConfig
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from jaxtyping import Float
from torch import Tensor, nn

from polydit.bench.cache_subjects import Subject
from polydit.core.models.dit import DiT
from polydit.core.nn.modulation import ModulationTable
from polydit.core.nn.patchify import unpatchify
from polydit.core.sampling.cache import (
    BlockRange,
    Cache,
    CacheWarning,
    FirstBlock,
    Interval,
    Modules,
    Newton,
    Reuse,
    Site,
    Taylor,
)

OURS, DIFFUSERS, CACHE_DIT = "ours", "diffusers", "cache-dit"
EULER, SOLVERS, BOTH = "fewer Euler steps", "better solvers", "better solvers with our caches"

_SITES: dict[str, Site] = {
    "modules": Modules(),
    "after block 1": BlockRange(first=1),
    "all blocks": BlockRange(first=0, residual=False),
}


@dataclass(frozen=True, slots=True, eq=False)
class Contestant:
    """A way to sample.

    Args:
        family: One of the names above.
        name: The setting.
        run: Samples once, from start to end.
    """

    family: str
    name: str
    run: Callable[[], Float[Tensor, "b c *cells"]]


def contestants(subject: Subject, *, quick: bool) -> Iterator[Contestant]:
    """All of them; cache-dit's only where it is installed."""
    for name, cache in our_caches(quick=quick).items():
        yield Contestant(OURS, name, partial(cached, subject, cache))
    yield from _diffusers(subject, quick=quick)
    if has_cache_dit():
        yield from _cache_dit(subject, quick=quick)
    yield from _solvers(subject, quick=quick)


def our_caches(*, quick: bool) -> dict[str, Cache]:
    """Forecasters × sites × policies, the published rules among them."""
    intervals, orders = ((3, 5), (2,)) if quick else ((2, 3, 4, 6), (1, 2, 3))
    caches = {
        f"Newton {order}, {place}, every {every}": Cache(
            Newton(order), site, Interval(every=every, warm_up=3)
        )
        for every in intervals
        for order in orders
        for place, site in _SITES.items()
    }
    caches |= {
        f"Taylor 2, {place}, every {every}": Cache(Taylor(2), _SITES[place], Interval(every=every, warm_up=3))
        for every in intervals
        for place in ("modules", "after block 1")
    }
    for threshold in (0.1,) if quick else (0.05, 0.1, 0.2):
        rule = FirstBlock(threshold=threshold, warm_up=3)
        caches[f"first block, threshold {threshold}"] = Cache(Reuse(), BlockRange(first=1), rule)
        caches[f"Newton 2, first block, threshold {threshold}"] = Cache(Newton(2), BlockRange(first=1), rule)
    for threshold in (0.01,) if quick else (0.003, 0.01, 0.03):
        gate = FirstBlock(threshold=threshold, forecaster=Newton(2), residual=False, warm_up=4)
        caches[f"Newton 2, gate {threshold}"] = Cache(Newton(2), BlockRange(first=1), gate)
    return caches


def cached(
    subject: Subject, cache: Cache, solver_name: str = "euler", num_steps: int | None = None
) -> Float[Tensor, "b c *cells"]:
    """A run under one of our caches. One that skips nothing, of which it warns, is a figure like any other."""
    with (
        warnings.catch_warnings(action="ignore", category=CacheWarning),
        cache.run(subject.network, subject.clock(solver_name, num_steps)),
    ):
        return subject.sample(solver_name=solver_name, num_steps=num_steps)


def _solvers(subject: Subject, *, quick: bool) -> Iterator[Contestant]:
    """Fewer steps of Euler's and of better solvers, without a cache and under the best of ours."""
    shares = (2, 4) if quick else (1.5, 2, 3, 4, 6)
    for share in shares:
        steps = round(subject.num_steps / share)
        yield Contestant(EULER, f"Euler, {steps} steps", partial(subject.sample, num_steps=steps))
    for calls in (8, 12) if quick else (6, 8, 10, 12, 14, 18):
        for name in ("ab2", "ab3"):
            run = partial(subject.sample, solver_name=name, num_steps=calls)
            yield Contestant(SOLVERS, f"{name.upper()}, {calls} steps", run)
        run = partial(subject.sample, solver_name="midpoint", num_steps=max(2, calls // 2))
        yield Contestant(SOLVERS, f"midpoint, {max(2, calls // 2)} steps", run)
    cache = Cache(
        Newton(2, "sigma"),  # the calls of AB3's start lie nearer together than the others
        BlockRange(first=0, residual=False),
        Interval(every=2, warm_up=3),
    )
    for steps in (12,) if quick else (14, 18, 25):
        run = partial(cached, subject, cache, "ab3", steps)
        yield Contestant(BOTH, f"AB3, {steps} steps, Newton 2, all blocks, every 2", run)


def _diffusers(subject: Subject, *, quick: bool) -> Iterator[Contestant]:
    configs: dict[str, Any] = {
        f"TaylorSeer {order}, every {every}": TaylorSeerCacheConfig(
            cache_interval=every,
            disable_cache_before_step=3,
            max_order=order,
            taylor_factors_dtype=torch.float32,
        )
        for every in ((3,) if quick else (2, 3, 4, 6))
        for order in ((2,) if quick else (1, 2))
    }
    for threshold in (0.1,) if quick else (0.05, 0.1, 0.2):
        configs[f"first block, threshold {threshold}"] = FirstBlockCacheConfig(threshold=threshold)
    for name, config in configs.items():
        network: CacheMixin = copy.deepcopy(subject.network)
        network.enable_cache(config)
        yield Contestant(DIFFUSERS, name, partial(_run_diffusers, subject, network))


def _run_diffusers(subject: Subject, network: CacheMixin) -> Float[Tensor, "b c *cells"]:
    network._reset_stateful_cache()  # the state of the run before; without it, TaylorSeer's runs differ

    def call(*args: Any, **kwargs: Any) -> Any:
        with network.cache_context("run"):
            return network(*args, **kwargs)

    return subject.sample(call)


def has_cache_dit() -> bool:
    """Whether the extra `cache-dit` is installed."""
    return importlib.util.find_spec("cache_dit") is not None


def _cache_dit(subject: Subject, *, quick: bool) -> Iterator[Contestant]:
    """DBCache by threshold and by a fixed mask of steps, with and without its calibrators."""
    cache_dit = _import_cache_dit()
    calibrators = {
        "": None,
        ", TaylorSeer 1": cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=1),
        ", TaylorSeer 2": cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=2),
        ", FoCa": cache_dit.FoCaCalibratorConfig(),
        ", DMD": cache_dit.DMDCalibratorConfig(),
    }
    settings: dict[str, dict[str, Any]] = {}
    for threshold in (0.1,) if quick else (0.05, 0.1, 0.2):
        settings[f"F1B0, threshold {threshold}"] = {
            "residual_diff_threshold": threshold,
            "max_warmup_steps": 3,
        }
    for every in (3, 5) if quick else (2, 3, 4, 6):
        mask = [int(bool(full)) for full in Interval(every=every, warm_up=3).plan(subject.num_steps)]
        settings[f"F1B0, every {every}"] = {
            "steps_computation_mask": mask,
            "steps_computation_policy": "static",
        }
    for name, setting in settings.items():
        for suffix, calibrator in calibrators.items():
            if not quick or suffix in ("", ", TaylorSeer 2"):
                network = _with_cache_dit(subject, setting, calibrator)
                run = partial(_run_cache_dit, subject, network)
                yield Contestant(CACHE_DIT, name + suffix, run)


def _with_cache_dit(subject: Subject, setting: dict[str, Any], calibrator: Any) -> nn.Module:
    cache_dit = _import_cache_dit()
    network: nn.Module = copy.deepcopy(subject.network)
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,  # the default, 8, is as many as the DiT has
        Bn_compute_blocks=0,
        num_inference_steps=subject.num_steps,
        enable_separate_cfg=False,
        **setting,
    )
    adapter: Any = network
    if isinstance(network, DiT):  # it knows FLUX, but not ours
        network = _AlikeBlocks(network)
        adapter = cache_dit.BlockAdapter(
            transformer=network,
            blocks=network.blocks,
            forward_pattern=cache_dit.ForwardPattern.Pattern_3,
            check_forward_pattern=False,
        )
    cache_dit.enable_cache(adapter, cache_config=config, calibrator_config=copy.deepcopy(calibrator))
    return network


class _AlikeBlocks(nn.Module):
    """Our DiT for cache-dit, which calls all blocks with what the first one is given: each picks its own modulation."""

    def __init__(self, network: DiT) -> None:
        super().__init__()
        self.network = network
        self.blocks = nn.ModuleList(_PickingBlock(block, index) for index, block in enumerate(network.blocks))

    def forward(self, x: Tensor, modulation: ModulationTable) -> Transformer2DModelOutput:
        tokens = self.network.patch_embed(x) + self.network.positions
        for block in self.blocks:
            tokens = block(tokens, modulation.blocks)
        patches = self.network.final(tokens, modulation.final)
        return Transformer2DModelOutput(unpatchify(patches, self.network.grid, self.network.patch))


class _PickingBlock(nn.Module):
    """A block that is given the modulation of all."""

    def __init__(self, block: nn.Module, index: int) -> None:
        super().__init__()
        self.block, self.index = block, index

    def forward(self, hidden_states: Tensor, modulation: Tensor) -> Tensor:
        return self.block(hidden_states, modulation[:, self.index])


def _run_cache_dit(subject: Subject, network: nn.Module) -> Float[Tensor, "b c *cells"]:
    _import_cache_dit().refresh_context(network, num_inference_steps=subject.num_steps)
    return subject.sample(network)


def _import_cache_dit() -> Any:
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")  # it logs to stdout, where our results are
    return importlib.import_module("cache_dit")
