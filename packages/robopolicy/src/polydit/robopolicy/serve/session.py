"""One client's conversation with a policy: a message in, a message out. It knows nothing of sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np

from polydit.core.errors import InputError, PolyditError
from polydit.robopolicy.serve.messages import Message, pack, unpack
from polydit.robopolicy.serve.metadata import Metadata, ServedPolicy

_MAX_SEED = 2**63 - 1


class Session:
    """Answers the requests of one client.

    Args:
        policy: Its own policy, whose queue and noise are nobody else's; it may share weights with others.
        metadata: What is told about the policy.
        computer: Where the policy computes: one thread for all, so that the policies of one process take turns.
    """

    def __init__(self, policy: ServedPolicy, metadata: Metadata, computer: Executor) -> None:
        self.policy, self.metadata, self.computer = policy, metadata, computer
        self.actions, self.milliseconds = 0, 0.0  # answered, and the time they took together
        self._answers: dict[str, Callable[[Message], dict[str, Any]]] = {
            "metadata": self._describe,
            "reset": self._reset,
            "act": self._act,
        }
        self.computer.submit(self.policy.reset, 0).result()

    def answer(self, data: bytes | str) -> bytes:
        """The reply to one message; whatever is wrong becomes a reply too."""
        try:
            return pack(self._answer(unpack(data)))
        except PolyditError as error:
            return pack(described(error))
        except Exception as error:  # a failure in one policy must not end the other clients' sessions
            return pack(described(PolyditError(f"the policy failed: {type(error).__name__}: {error}")))

    def _answer(self, request: Message) -> dict[str, Any]:
        answer = self._answers.get(request["type"])
        if answer is None:
            raise InputError(
                f"there is no request {request['type']!r}", where="type", expected=", ".join(self._answers)
            )
        return answer(request)

    def _describe(self, request: Message) -> dict[str, Any]:
        return {"type": "metadata", **self.metadata.record()}

    def _reset(self, request: Message) -> dict[str, Any]:
        seed = request.get("seed", 0)
        if type(seed) is not int or not 0 <= seed <= _MAX_SEED:
            raise InputError(
                f"{seed!r} is no seed", where="seed", expected="a whole number from 0 to 2^63 - 1"
            )
        self.computer.submit(self.policy.reset, seed).result()
        return {"type": "ready"}

    def _act(self, request: Message) -> dict[str, Any]:
        observation, chunk = request.get("observation"), request.get("chunk", False)
        if not isinstance(chunk, bool):
            raise InputError(f"{chunk!r} is neither true nor false", where="chunk")
        if not isinstance(observation, dict):
            raise InputError("the request has no observation", expected='a map of arrays under "observation"')
        for key, value in observation.items():
            if not isinstance(value, (np.ndarray, str)):
                raise InputError(
                    f"it is of the kind {type(value).__name__}", where=key, expected="an array or a text"
                )
        self.policy.check(
            observation
        )  # here too where the action comes from the queue: a robot learns at once
        actions, milliseconds = self.computer.submit(self._timed, observation, chunk).result()
        self.actions += 1
        self.milliseconds += milliseconds
        return {"type": "actions", "actions": actions, "milliseconds": milliseconds}

    def _timed(self, observation: Message, chunk: bool) -> tuple[np.ndarray, float]:
        start = time.perf_counter()
        act = self.policy.predict_action_chunk if chunk else self.policy.select_action
        return act(observation), (time.perf_counter() - start) * 1000.0


def described(error: PolyditError) -> dict[str, Any]:
    """An error as a message; `usage` tells whether the client can mend it."""
    return {
        "type": "error",
        "usage": isinstance(error, InputError),
        "problem": error.problem,
        "where": error.where,
        "expected": error.expected,
        "hint": error.hint,
    }
