"""Feature caches: steps of a sampling run whose blocks are forecast in place of being computed.

A cache is a forecaster, a site and a policy; `Cache.run` applies it to a network for one run. Published methods::

    TaylorSeer  Cache(Taylor(2), Modules(), Interval(every=4, warm_up=2))
    Δ-DiT       Cache(Reuse(), BlockRange(first=0, stop=14), Interval(every=2))         without its moving range
    FBCache     Cache(Reuse(), BlockRange(first=1), FirstBlock(threshold=0.08))
    CG-Taylor   Cache(Taylor(1), BlockRange(first=1, residual=False),
                      FirstBlock(threshold=0.03, forecaster=Taylor(1), residual=False, warm_up=5, cool_down=1))
    DDT         Cache(Reuse(), BlockRange(first=0, stop=22, residual=False),
                      Table.of_steps(optimal_sharing(states, every=3), num_steps))
"""

from polydit.core.sampling.cache.blocks import find_blocks
from polydit.core.sampling.cache.clock import Clock
from polydit.core.sampling.cache.forecasters import Forecaster, Ladder, Newton, Reuse, Taylor
from polydit.core.sampling.cache.policies import FirstBlock, Interval, Policy, Table
from polydit.core.sampling.cache.report import CacheReport, CacheWarning
from polydit.core.sampling.cache.run import Cache, CacheRun
from polydit.core.sampling.cache.sharing import optimal_sharing, sharing_costs
from polydit.core.sampling.cache.sites import BlockRange, Modules, Site

__all__ = [
    "BlockRange",
    "Cache",
    "CacheReport",
    "CacheRun",
    "CacheWarning",
    "Clock",
    "FirstBlock",
    "Forecaster",
    "Interval",
    "Ladder",
    "Modules",
    "Newton",
    "Policy",
    "Reuse",
    "Site",
    "Table",
    "Taylor",
    "find_blocks",
    "optimal_sharing",
    "sharing_costs",
]
