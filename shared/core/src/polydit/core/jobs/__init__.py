"""Runs as folders: per-item seeds, a manifest that survives a kill, resume, and the loop over items.

Nothing here knows a domain, and nothing imports torch before an item needs it.
"""

from __future__ import annotations

from polydit.core.jobs.files import DiskFullError, atomic_file, safe_name, scratch_folder
from polydit.core.jobs.items import Tally, run_batches, run_stream
from polydit.core.jobs.manifest import ItemFailure, ItemResult, Manifest, ManifestRecord, Output
from polydit.core.jobs.memory import is_out_of_memory
from polydit.core.jobs.plan import Plan, Shard
from polydit.core.jobs.run_folder import RunFolder
from polydit.core.jobs.run_record import RunRecord, read_run
from polydit.core.jobs.seeds import item_generator, item_seed, item_uniform

__all__ = [
    "DiskFullError",
    "ItemFailure",
    "ItemResult",
    "Manifest",
    "ManifestRecord",
    "Output",
    "Plan",
    "RunFolder",
    "RunRecord",
    "Shard",
    "Tally",
    "atomic_file",
    "is_out_of_memory",
    "item_generator",
    "item_seed",
    "item_uniform",
    "read_run",
    "run_batches",
    "run_stream",
    "safe_name",
    "scratch_folder",
]
