"""Other behaviour for some modules' `forward`, in one thread and for as long as a `with` block lasts.

The modules are shared by all threads, what is to happen in them is not: a module's `forward` is replaced by a switch
that looks up the handlers of the running context, and is put back when the last context that needs it has ended.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

Forward = Callable[..., Any]
Handler = Callable[
    [Forward, tuple[Any, ...], dict[str, Any]], Any
]  # given the module's own forward and its inputs

_ACTIVE: ContextVar[tuple[Mapping[nn.Module, Handler], ...]] = ContextVar("handlers of forward", default=())
_LOCK = threading.Lock()


class _Switch:
    """Stands in the place of a module's `forward`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.forward: Forward = module.forward
        self.own = module.__dict__.get("forward")  # hooks of diffusers put theirs into the instance
        self.users = 0
        functools.update_wrapper(self, self.forward, updated=())  # diffusers asks for its signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for handlers in reversed(_ACTIVE.get()):
            if (handler := handlers.get(self.module)) is not None:
                return handler(self.forward, args, kwargs)
        return self.forward(*args, **kwargs)


@contextmanager
def handling(handlers: Mapping[nn.Module, Handler]) -> Iterator[None]:
    """Within the block and its thread, each module's handler is called in place of its `forward`."""
    installed: list[nn.Module] = []
    try:
        for module in handlers:
            _install(module)
            installed.append(module)
        _ACTIVE.set((*_ACTIVE.get(), handlers))
        yield
    finally:
        _ACTIVE.set(tuple(other for other in _ACTIVE.get() if other is not handlers))
        for module in installed:
            _remove(module)


def is_handled(module: nn.Module) -> bool:
    """Whether a `handling` block of this thread has a handler for the module."""
    return any(module in handlers for handlers in _ACTIVE.get())


def _install(module: nn.Module) -> None:
    with _LOCK:
        switch = module.__dict__.get("forward")
        if not isinstance(switch, _Switch):
            switch = _Switch(module)
            module.__dict__["forward"] = switch
        switch.users += 1


def _remove(module: nn.Module) -> None:
    with _LOCK:
        switch = module.__dict__["forward"]
        switch.users -= 1
        if switch.users:
            return
        if switch.own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = switch.own
