"""Feature caches: steps of a sampling run whose blocks are forecast in place of being computed.

A cache is a forecaster, a site and a policy; `Cache.run` applies it to a network for one run. Published methods have
names, see `polydit.core.sampling.cache.named`; each is a line such as::

    TaylorSeer  Cache(Taylor(2), Modules(), Interval(every=4, warm_up=2))

What stands here is imported when it is first used, so that a command line can check a cache's name without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polydit.core.lazy import lazy_names

if TYPE_CHECKING:
    from polydit.core.sampling.cache.blocks import find_blocks
    from polydit.core.sampling.cache.clock import Clock
    from polydit.core.sampling.cache.forecasters import Forecaster, Ladder, Newton, Reuse, Taylor
    from polydit.core.sampling.cache.modules import Modules, RoutedModules
    from polydit.core.sampling.cache.named import CACHES, CacheSetting, cache_named, cached
    from polydit.core.sampling.cache.output import Output
    from polydit.core.sampling.cache.policies import FirstBlock, Interval, Policy, Table
    from polydit.core.sampling.cache.report import CacheReport, CacheTally, CacheWarning
    from polydit.core.sampling.cache.router import RouterTraining, train_router
    from polydit.core.sampling.cache.routes import RouteTable
    from polydit.core.sampling.cache.run import Cache, CacheRun
    from polydit.core.sampling.cache.sharing import optimal_sharing, shared_states, sharing_costs
    from polydit.core.sampling.cache.sites import BlockRange, MovingRange, Site

__all__ = [
    "CACHES",
    "BlockRange",
    "Cache",
    "CacheReport",
    "CacheRun",
    "CacheSetting",
    "CacheTally",
    "CacheWarning",
    "Clock",
    "FirstBlock",
    "Forecaster",
    "Interval",
    "Ladder",
    "Modules",
    "MovingRange",
    "Newton",
    "Output",
    "Policy",
    "Reuse",
    "RouteTable",
    "RoutedModules",
    "RouterTraining",
    "Site",
    "Table",
    "Taylor",
    "cache_named",
    "cached",
    "find_blocks",
    "optimal_sharing",
    "shared_states",
    "sharing_costs",
    "train_router",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "find_blocks": "polydit.core.sampling.cache.blocks",
        "Clock": "polydit.core.sampling.cache.clock",
        "Forecaster": "polydit.core.sampling.cache.forecasters",
        "Ladder": "polydit.core.sampling.cache.forecasters",
        "Newton": "polydit.core.sampling.cache.forecasters",
        "Reuse": "polydit.core.sampling.cache.forecasters",
        "Taylor": "polydit.core.sampling.cache.forecasters",
        "Modules": "polydit.core.sampling.cache.modules",
        "RoutedModules": "polydit.core.sampling.cache.modules",
        "CACHES": "polydit.core.sampling.cache.named",
        "CacheSetting": "polydit.core.sampling.cache.named",
        "cache_named": "polydit.core.sampling.cache.named",
        "cached": "polydit.core.sampling.cache.named",
        "Output": "polydit.core.sampling.cache.output",
        "FirstBlock": "polydit.core.sampling.cache.policies",
        "Interval": "polydit.core.sampling.cache.policies",
        "Policy": "polydit.core.sampling.cache.policies",
        "Table": "polydit.core.sampling.cache.policies",
        "CacheReport": "polydit.core.sampling.cache.report",
        "CacheTally": "polydit.core.sampling.cache.report",
        "CacheWarning": "polydit.core.sampling.cache.report",
        "RouterTraining": "polydit.core.sampling.cache.router",
        "train_router": "polydit.core.sampling.cache.router",
        "RouteTable": "polydit.core.sampling.cache.routes",
        "Cache": "polydit.core.sampling.cache.run",
        "CacheRun": "polydit.core.sampling.cache.run",
        "optimal_sharing": "polydit.core.sampling.cache.sharing",
        "shared_states": "polydit.core.sampling.cache.sharing",
        "sharing_costs": "polydit.core.sampling.cache.sharing",
        "BlockRange": "polydit.core.sampling.cache.sites",
        "MovingRange": "polydit.core.sampling.cache.sites",
        "Site": "polydit.core.sampling.cache.sites",
    },
)
