"""Other behaviour for some modules' `forward`, in one thread and for as long as a `with` block lasts.

The modules are shared by all threads, what is to happen in them is not: a module's `forward` is replaced by a switch
that looks up the handlers of the running context, and is put back when the last context that needs it has ended.

Of a module that was compiled (`compile_repeated_blocks`) it is the compiled call that is replaced, so the handler
stands around it and the module is not compiled anew. Within a compiled module, another one's switch is not compiled.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

Forward = Callable[..., Any]
Handler = Callable[
    [Forward, tuple[Any, ...], dict[str, Any]], Any
]  # given the module's own forward and its inputs

_ACTIVE: ContextVar[tuple[Mapping[nn.Module, Handler], ...]] = ContextVar("handlers of forward", default=())
_LOCK = threading.Lock()


class _Switch:
    """Stands in the place of a module's `forward`, or of its compiled call."""

    def __init__(self, module: nn.Module, slot: str) -> None:
        self.module, self.slot = module, slot
        self.forward: Forward = getattr(module, slot)
        self.own = module.__dict__.get(slot)  # hooks of diffusers put their `forward` into the instance
        self.users = 0
        functools.update_wrapper(self, module.forward, updated=())  # diffusers asks for its signature

    @torch.compiler.disable
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


def within(outer: Handler, inner: Handler) -> Handler:
    """A handler whose module's own `forward` is another handler."""

    def handler(forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return outer(lambda *a, **k: inner(forward, a, k), args, kwargs)

    return handler


def is_handled(module: nn.Module) -> bool:
    """Whether a `handling` block of this thread has a handler for the module."""
    return any(module in handlers for handlers in _ACTIVE.get())


def _install(module: nn.Module) -> None:
    with _LOCK:
        switch = _switch(module)
        if switch is None:
            slot = "forward" if module._compiled_call_impl is None else "_compiled_call_impl"
            switch = module.__dict__[slot] = _Switch(module, slot)
        switch.users += 1


def _remove(module: nn.Module) -> None:
    with _LOCK:
        switch = _switch(module)
        assert switch is not None
        switch.users -= 1
        if switch.users:
            return
        if switch.own is None:
            del module.__dict__[switch.slot]
        else:
            module.__dict__[switch.slot] = switch.own


def _switch(module: nn.Module) -> _Switch | None:
    places = (module.__dict__.get(slot) for slot in ("forward", "_compiled_call_impl"))
    return next((place for place in places if isinstance(place, _Switch)), None)
