"""Messages between client and server: arrays as they were, and an answer by name to whatever is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from polydit.core.errors import InputError, PolyditError
from polydit.robopolicy.serve.client import PolicyClient
from polydit.robopolicy.serve.messages import pack, unpack
from polydit.robopolicy.serve.metadata import Metadata
from polydit.robopolicy.serve.server import PolicyServer

if TYPE_CHECKING:
    from polydit.robopolicy.policy import RobotPolicy

Observation = Mapping[str, np.ndarray | str]
Serving = Callable[..., AbstractContextManager[PolicyServer]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_arrays_come_back_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    back = unpack(pack({"type": "x", "values": values}))["values"]
    np.testing.assert_array_equal(back, values, strict=True)
    assert back.flags.writeable


def test_an_array_of_any_layout_travels() -> None:
    values = np.arange(12, dtype=">f8").reshape(3, 4).T[::2]
    back = unpack(pack({"type": "x", "values": values}))["values"]
    np.testing.assert_array_equal(back, values)


# --- what is refused ------------------------------------------------------------------------------------


@pytest.fixture
def asked(url: str) -> Iterator[Callable[[Mapping[str, Any] | bytes | str], dict[str, Any]]]:
    """Sends what a client may send, as it is, and gives the answer."""
    with connect(url, compression=None) as connection:
        assert unpack(connection.recv())["type"] == "hello"

        def ask(message: Mapping[str, Any] | bytes | str) -> dict[str, Any]:
            connection.send(msgpack.packb(message) if isinstance(message, Mapping) else message)
            return unpack(connection.recv(timeout=30.0))

        yield ask


def array(dtype: Any = "float32", shape: Any = (5,), data: Any = bytes(20)) -> dict[str, Any]:
    return {"__array__": dtype, "shape": shape, "data": data}


def act(state: Any, **more: Any) -> dict[str, Any]:
    return {"type": "act", "observation": {"observation.state": state, "task": "open the drawer"}, **more}


BAD = {
    "a type that does not travel": (act(array("object")), "observation.state", "the type 'object'"),
    "a type of the other byte order": (act(array(">f4")), "observation.state", "the type '>f4'"),
    "a shape beyond its bytes": (act(array(shape=(1 << 40,))), "observation.state", "20 bytes"),
    "a shape whose size overflows": (act(array(shape=[2**32, 2**32])), "observation.state", "20 bytes"),
    "a negative shape": (act(array(shape=(-5, -1))), "observation.state", "is no shape"),
    "a shape of another kind": (act(array(shape=[True] * 4)), "observation.state", "is no shape"),
    "too many axes": (act(array(shape=[1] * 5)), "observation.state", "is no shape"),
    "data that are text": (act(array(data="x" * 20)), "observation.state", "no data"),
    "a state of another length": (act(array(shape=(4,), data=bytes(16))), "observation.state", "(4)"),
    "a state of more axes": (act(array(shape=(1, 5))), "observation.state", "(1, 5)"),
    "a state that is no array": (act([0.0] * 5), "observation.state", ""),
    "a state that is not finite": (
        act(array(data=np.full(5, np.nan, np.float32).tobytes())),
        "observation.state",
        "finite",
    ),
    "no observation": ({"type": "act"}, None, "no observation"),
    "an empty observation": ({"type": "act", "observation": {}}, "observation.state", ""),
    "an unknown task": (
        {"type": "act", "observation": {"observation.state": array(), "task": "fly"}},
        "task",
        "'fly'",
    ),
    "chunk that is a number": (act(array(), chunk=1), "chunk", "1"),
    "an unknown request": ({"type": "shutdown"}, "type", "shutdown"),
    "a request without a type": ({"observation": {}}, None, "no type"),
    "a seed below zero": ({"type": "reset", "seed": -1}, "seed", "-1"),
    "a seed that is text": ({"type": "reset", "seed": "1"}, "seed", "'1'"),
    "a list": (msgpack.packb([1, 2]), None, "no type"),
    "a torn message": (msgpack.packb(act(array()))[:-3], None, "damaged"),
    "two messages in one": (msgpack.packb({"type": "metadata"}) * 2, None, "damaged"),
    "nothing": (b"", None, "damaged"),
    "a list that states two billion entries": (b"\xdd\x7f\xff\xff\xff", None, "damaged"),
    "a thousand nested lists": (b"\x91" * 5000 + b"\xc0", None, "damaged"),
    "an extension": (msgpack.packb({"type": msgpack.ExtType(1, b"x")}), None, "damaged"),
    "a text frame": ("metadata", None, "text frame"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_answered_by_name_and_the_session_goes_on(
    case: str, asked: Callable[..., dict[str, Any]]
) -> None:
    message, where, problem = BAD[case]
    answer = asked(message)
    assert (answer["type"], answer["usage"]) == ("error", True)
    assert problem in answer["problem"]
    assert where is None or where in (answer["where"] or answer["problem"])
    assert asked(act(array()))["actions"].shape == (3,)


def test_the_client_raises_what_the_server_refuses(url: str, observation: Observation) -> None:
    with PolicyClient(url) as client:
        with pytest.raises(InputError, match=r"has the shape \(4\)") as caught:
            client.select_action({**observation, "observation.state": np.zeros(4, np.float32)})
        assert caught.value.where == "observation.state"
        with pytest.raises(InputError, match="complex128"):
            client.select_action({**observation, "observation.state": np.zeros(5, complex)})
        assert client.select_action(observation).shape == (3,)


class Failing:
    """A policy whose program fails."""

    def check(self, observation: Observation) -> None: ...

    def reset(self, seed: int = 0) -> None: ...

    def select_action(self, observation: Observation) -> np.ndarray:
        raise ZeroDivisionError("no such pivot")

    def predict_action_chunk(self, observation: Observation) -> np.ndarray:
        return np.full((6, 3), np.nan, np.float32)


def test_a_policy_that_fails_ends_neither_session_nor_server(
    tiny_policy: RobotPolicy, observation: Observation
) -> None:
    with PolicyServer(Failing, Metadata.of(tiny_policy, "failing"), port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with PolicyClient(server.url) as client:
            for _ in range(2):
                with pytest.raises(PolyditError, match="ZeroDivisionError: no such pivot"):
                    client.select_action(observation)
            with pytest.raises(PolyditError, match="not finite"):
                client.predict_action_chunk(observation)
        server.close()
        thread.join(10.0)


def test_a_message_that_is_too_long_is_refused(
    serving: Serving, tiny_policy: RobotPolicy, observation: Observation
) -> None:
    with serving(tiny_policy, max_message=1000) as server:
        with PolicyClient(server.url) as client:
            with pytest.raises(InputError, match=r"expected at most 1,000\. .*--max-message"):
                client.select_action({**observation, "observation.state": np.zeros(1000, np.float32)})
            assert client.select_action(observation).shape == (3,)
        with connect(server.url, compression=None) as careless:
            careless.recv()
            careless.send(bytes(1001))
            with pytest.raises(ConnectionClosedError) as closed:
                careless.recv(timeout=30.0)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
        with PolicyClient(server.url) as client:
            assert client.select_action(observation).shape == (3,)
