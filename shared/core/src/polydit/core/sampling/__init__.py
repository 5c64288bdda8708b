"""From noise to samples: one denoising loop over diffusers' schedulers, solvers, guidance in one batch, feature caches.

What stands here is imported when it is first used, so that a command line can check a setting without torch. Caches in
full are in `polydit.core.sampling.cache`, solvers in `polydit.core.sampling.solvers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polydit.core.lazy import lazy_names

if TYPE_CHECKING:
    from polydit.core.sampling.cache import Cache, CacheReport, CacheWarning, Clock, cache_named, cached
    from polydit.core.sampling.guidance import guide, guided_model
    from polydit.core.sampling.loop import denoise
    from polydit.core.sampling.ode import integrate
    from polydit.core.sampling.ras import KeptTokens, RegionAdaptive, RegionRule
    from polydit.core.sampling.solvers import INVERSIONS, SOLVERS, FlowSolver, solver

__all__ = [
    "INVERSIONS",
    "SOLVERS",
    "Cache",
    "CacheReport",
    "CacheWarning",
    "Clock",
    "FlowSolver",
    "KeptTokens",
    "RegionAdaptive",
    "RegionRule",
    "cache_named",
    "cached",
    "denoise",
    "guide",
    "guided_model",
    "integrate",
    "solver",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Cache": "polydit.core.sampling.cache",
        "CacheReport": "polydit.core.sampling.cache",
        "CacheWarning": "polydit.core.sampling.cache",
        "Clock": "polydit.core.sampling.cache",
        "cache_named": "polydit.core.sampling.cache",
        "cached": "polydit.core.sampling.cache",
        "guide": "polydit.core.sampling.guidance",
        "guided_model": "polydit.core.sampling.guidance",
        "denoise": "polydit.core.sampling.loop",
        "integrate": "polydit.core.sampling.ode",
        "KeptTokens": "polydit.core.sampling.ras",
        "RegionAdaptive": "polydit.core.sampling.ras",
        "RegionRule": "polydit.core.sampling.ras",
        "INVERSIONS": "polydit.core.sampling.solvers",
        "SOLVERS": "polydit.core.sampling.solvers",
        "FlowSolver": "polydit.core.sampling.solvers",
        "solver": "polydit.core.sampling.solvers",
    },
)
