"""Memory: what a failure looks like, how to give some back, and the peak of a batch."""

from __future__ import annotations

import sys
from typing import Any

# RuntimeError is what torch raises for the CPU allocator and for some accelerators; only the words tell.
_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the process or of an accelerator."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def release_cached_memory() -> None:
    """Gives the accelerator's unused blocks back, so that a smaller batch finds room."""
    if cuda := _cuda():
        cuda.empty_cache()


def start_measuring_peak() -> None:
    """Forgets the accelerator's earlier peak; that of a process cannot be forgotten."""
    if cuda := _cuda():
        cuda.reset_peak_memory_stats()


def peak_memory_mb() -> float:
    """Peak in MiB: of the accelerator since `start_measuring_peak` if one is in use, else of the process."""
    if cuda := _cuda():
        return float(cuda.max_memory_allocated()) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _cuda() -> Any:
    """torch.cuda if this process uses it; torch is not imported for the question."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
