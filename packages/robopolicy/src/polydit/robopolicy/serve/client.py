"""The robot's side: a policy elsewhere, used as if it were here.

    >>> with PolicyClient("ws://gpu-box:8764", token=os.environ["ROBOPOLICY_TOKEN"]) as policy:
    ...     policy.reset(seed=0)
    ...     action = policy.select_action({"observation.state": state, "task": "open the drawer"})

It computes nothing: torch is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from jaxtyping import Float

from polydit.core.errors import InputError, PolyditError
from polydit.robopolicy.episode import TASK
from polydit.robopolicy.serve.access import Token, require_extra
from polydit.robopolicy.serve.messages import MAX_MESSAGE, PROTOCOL, Message, pack, unpack
from polydit.robopolicy.serve.metadata import Metadata


class PolicyClient:
    """Has `reset`, `select_action` and `predict_action_chunk` of `RobotPolicy`.

    Args:
        url: `ws://host:port`, or `wss://` through a proxy that encrypts.
        token: What the server asks for, if it does.
        timeout: Seconds to wait for an answer.

    Attributes:
        metadata: What the policy expects and gives.
        milliseconds: Time that the server's policy took for the last answer.

    Raises:
        InputError: The address is none, the token is wrong, or the server speaks another version.
        PolyditError: No server answers there.
        MissingExtraError: The extra `serve` is not installed.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 60.0) -> None:
        self.url, self.timeout, self.milliseconds = url, timeout, 0.0
        self._open = ExitStack()
        self._connection = _connect(self._open, url, Token(token, "token") if token else None, timeout)
        try:
            self._max_message = self._greet()
            self.metadata = Metadata.from_record(self._ask({"type": "metadata"}, "metadata"))
        except BaseException:
            self.close()
            raise

    def reset(self, seed: int = 0) -> None:
        """Start an episode; its noise comes from the seed."""
        self._ask({"type": "reset", "seed": seed}, "ready")

    def select_action(self, observation: Mapping[str, Any]) -> Float[np.ndarray, " a"]:
        """The next action; the chunk that it is from waits on the server.

        Args:
            observation: By LeRobot's keys. What the policy does not take is not sent.

        Raises:
            InputError: The observation does not fit; it names the part, both types and both shapes.
            PolyditError: The policy failed, or the connection is lost.
        """
        return self._act(observation, chunk=False)

    def predict_action_chunk(self, observation: Mapping[str, Any]) -> Float[np.ndarray, "h a"]:
        """The actions that follow the observation; arguments and errors as of `select_action`."""
        return self._act(observation, chunk=True)

    def close(self) -> None:
        """Leave the server."""
        self._open.close()

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _act(self, observation: Mapping[str, Any], *, chunk: bool) -> np.ndarray:
        keys = (*self.metadata.observation, TASK)
        wanted = {key: observation[key] for key in keys if observation.get(key) is not None}
        answer = self._ask({"type": "act", "observation": wanted, "chunk": chunk}, "actions")
        actions = answer.get("actions")
        shape = (self.metadata.horizon, self.metadata.action_dim)[0 if chunk else 1 :]
        if not isinstance(actions, np.ndarray) or actions.shape != shape or not np.isfinite(actions).all():
            raise PolyditError("the server's actions are of another shape or not finite", where=self.url)
        self.milliseconds = float(answer.get("milliseconds", 0.0))
        return actions.astype(np.float32)

    def _greet(self) -> int:
        """Reads the server's hello; gives the longest message that it takes."""
        hello = self._receive()
        if hello["type"] != "hello" or hello.get("protocol") != PROTOCOL:
            raise InputError(
                f"the server speaks version {hello.get('protocol')} of the protocol",
                where=self.url,
                expected=f"version {PROTOCOL}",
                hint="Install the same version of polydit-robopolicy on both sides",
            )
        return int(hello.get("max_message", MAX_MESSAGE))

    def _ask(self, request: Message, kind: str) -> dict[str, Any]:
        data = pack(request)
        if len(data) > self._max_message:
            raise InputError(
                f"the message has {len(data):,} bytes",
                where=self.url,
                expected=f"at most {self._max_message:,}",
                hint="Send smaller pictures, or start the server with a larger --max-message",
            )
        self._send(data)
        answer = self._receive()
        if answer["type"] == "error":
            parts = {key: answer.get(key) for key in ("where", "expected", "hint")}
            error = InputError if answer.get("usage") else PolyditError
            raise error(str(answer.get("problem")), **parts)
        if answer["type"] != kind:
            raise PolyditError(f"the server answered {answer['type']!r}", where=self.url, expected=kind)
        return answer

    def _send(self, data: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._connection.send(data)
        except ConnectionClosed as closed:
            raise self._lost(str(closed)) from None

    def _receive(self) -> dict[str, Any]:
        from websockets.exceptions import ConnectionClosed

        try:
            return unpack(self._connection.recv(timeout=self.timeout))
        except ConnectionClosed as closed:
            raise self._lost(str(closed)) from None
        except TimeoutError:
            # A late answer would be taken for the next request's.
            self.close()
            raise self._lost(f"no answer within {self.timeout:g} s") from None

    def _lost(self, reason: str) -> PolyditError:
        return PolyditError(
            f"the connection is lost: {reason}", where=self.url, hint="Make a new PolicyClient"
        )


def _connect(stack: ExitStack, url: str, token: Token | None, timeout: float) -> Any:
    require_extra()
    from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
    from websockets.sync.client import connect

    headers = {"Authorization": token.header} if token else {}
    try:
        connecting = connect(
            url,
            additional_headers=headers,
            compression=None,
            proxy=None,  # a robot's server is beside it, and the header must not pass a third party
            open_timeout=timeout,
            max_size=MAX_MESSAGE,
        )
        return stack.enter_context(connecting)
    except InvalidStatus as refused:
        code = refused.response.status_code
        problem = f"the server refuses the connection (HTTP {code})"
        hint = "Give the token that the server was started with" if code == 401 else None
        raise InputError(problem, where=url, hint=hint) from None
    except InvalidURI:
        raise InputError("this is no address", where=url, expected="ws://HOST:PORT") from None
    except (OSError, TimeoutError, WebSocketException) as error:
        hint = "Start one with: robopolicy serve"
        raise PolyditError(f"no policy's server answers ({error})", where=url, hint=hint) from None
