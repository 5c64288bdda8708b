"""The policy's server: one thread per client, one computation at a time."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from polydit.core.errors import InputError
from polydit.robopolicy.serve.access import Token, require_extra, require_token
from polydit.robopolicy.serve.messages import MAX_MESSAGE, PROTOCOL, pack
from polydit.robopolicy.serve.metadata import Metadata, ServedPolicy
from polydit.robopolicy.serve.session import Session

if TYPE_CHECKING:
    from websockets.http11 import Request, Response
    from websockets.sync.server import ServerConnection

    from polydit.robopolicy.policy import RobotPolicy

_LOG = logging.getLogger(__name__)
_LOG.addHandler(logging.NullHandler())  # else Python prints a traceback for each port scanner that knocks


class PolicyServer:
    """Listens from its making until `close`; `serve_forever` answers.

    Args:
        new_policy: Makes the policy of one client; the policies may share weights.
        metadata: What is told about the policies.
        host: Address to listen at.
        port: Port; 0 = any that is free.
        token: What clients must show; None = nothing, for an address that only this machine reaches.
        max_message: Longest message in bytes; a client that sends a longer one is cut off.
        tell: Called with a sentence when a client comes or leaves, from that client's thread.

    Raises:
        InputError: The address cannot be listened at, or needs a token.
        MissingExtraError: The extra `serve` is not installed.
    """

    def __init__(
        self,
        new_policy: Callable[[], ServedPolicy],
        metadata: Metadata,
        *,
        host: str = "127.0.0.1",
        port: int = 8764,
        token: Token | None = None,
        max_message: int = MAX_MESSAGE,
        tell: Callable[[str], None] = _LOG.info,
    ) -> None:
        require_extra()
        require_token(host, token)
        self.new_policy, self.metadata, self.token, self.tell = new_policy, metadata, token, tell
        self.max_message = max_message
        self._computer, self._serving = ThreadPoolExecutor(1, "policy"), False
        self._hello = pack(_hello(max_message))
        self._server = self._listen(host, port)
        self.host, self.port = host, int(self._server.socket.getsockname()[1])

    @property
    def url(self) -> str:
        """What a client on this machine connects to."""
        return f"ws://[{self.host}]:{self.port}" if ":" in self.host else f"ws://{self.host}:{self.port}"

    def serve_forever(self) -> None:
        """Answer clients until `close` is called in another thread, or an exception such as Ctrl-C ends it."""
        self._serving = True
        self._server.serve_forever()

    def close(self) -> None:
        """Say goodbye to the clients, wait for their threads, and free the port."""
        if self._serving:
            self._server.shutdown()
        else:  # shutdown would wait for the loop to end
            self._server.socket.close()
        self._computer.shutdown()

    def __enter__(self) -> PolicyServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _listen(self, host: str, port: int) -> Any:
        from websockets.sync.server import serve

        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return serve(
                self._converse,
                host,
                port,
                family=family,
                origins=[None],  # browsers send one, and a web page must not drive a robot
                compression=None,  # it would cost more time than it saves
                process_request=self._admit,
                server_header=None,
                max_size=self.max_message,
                logger=_LOG,
            )
        except (OSError, OverflowError) as error:
            raise InputError(
                f"cannot listen there ({error})",
                where=f"{host}:{port}",
                hint="Choose another --host or --port",
            ) from None

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuses a client that does not show the token, before anything else is said."""
        shown = request.headers.get_all("Authorization")
        if self.token is None or (len(shown) == 1 and self.token.accepts(shown[0])):
            return None
        self.tell(f"{_name_of(connection)} was refused: {'a wrong' if shown else 'no'} token")
        response = connection.respond(HTTPStatus.UNAUTHORIZED, "This server asks for a token.\n")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def _converse(self, connection: ServerConnection) -> None:
        """One client, from hello to goodbye."""
        from websockets.exceptions import ConnectionClosed

        client = _name_of(connection)
        self.tell(f"{client} came")
        session = Session(self.new_policy(), self.metadata, self._computer)
        reason = "left"
        try:
            connection.send(self._hello)
            for message in connection:
                connection.send(session.answer(message))
        except ConnectionClosed as closed:
            reason = f"was lost ({closed})"
        mean = f", {session.milliseconds / session.actions:.1f} ms each" if session.actions else ""
        self.tell(f"{client} {reason} after {session.actions} answers{mean}")


def sharing_weights(policy: RobotPolicy) -> Callable[[], ServedPolicy]:
    """Makes policies with one network among them; each begins its own episode when it is reset."""

    def another() -> ServedPolicy:
        return copy(policy)  # `reset` gives the copy its own queue and noise

    return another


def _hello(max_message: int) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "type": "hello",
        "protocol": PROTOCOL,
        "version": version("polydit-robopolicy"),
        "max_message": max_message,
    }


def _name_of(connection: ServerConnection) -> str:
    host, port = connection.remote_address[:2]
    return f"{host}:{port}"
