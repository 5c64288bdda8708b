"""A tiny policy behind a socket of this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from polydit.robopolicy.serve.metadata import Metadata
from polydit.robopolicy.serve.server import PolicyServer, sharing_weights

if TYPE_CHECKING:
    from polydit.robopolicy.policy import RobotPolicy

Serving = Callable[..., AbstractContextManager[PolicyServer]]


@pytest.fixture(scope="session")
def serving() -> Serving:
    """``with serving(policy, max_message=1000) as server``: until then it answers on a free port."""

    @contextmanager
    def serve(policy: RobotPolicy, **options: Any) -> Iterator[PolicyServer]:
        metadata = Metadata.of(policy, "tiny")
        with PolicyServer(sharing_weights(policy), metadata, **{"port": 0, **options}) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield server
            finally:
                server.close()
                thread.join(10.0)
                assert not thread.is_alive()

    return serve


@pytest.fixture(scope="module")
def url(serving: Serving, tiny_policy: RobotPolicy) -> Iterator[str]:
    """Where `tiny_policy` answers."""
    with serving(tiny_policy) as server:
        yield server.url
