"""A policy behind a socket: what it answers, to whom, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import pytest
from click.testing import Result
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from polydit.core.errors import InputError, MissingExtraError, PolyditError
from polydit.robopolicy.serve import access
from polydit.robopolicy.serve.access import Token, find_token, is_loopback
from polydit.robopolicy.serve.client import PolicyClient
from polydit.robopolicy.serve.messages import pack, unpack
from polydit.robopolicy.serve.metadata import Metadata, Part
from polydit.robopolicy.serve.server import PolicyServer, sharing_weights

if TYPE_CHECKING:
    from polydit.robopolicy.policy import RobotPolicy

SECRET = "a-secret-of-sixteen-or-more"
Observation = Mapping[str, np.ndarray | str]
Serving = Callable[..., Any]


@contextmanager
def serving(policy: RobotPolicy, **options: Any) -> Iterator[PolicyServer]:
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


@pytest.fixture(scope="module")
def url(tiny_policy: RobotPolicy) -> Iterator[str]:
    with serving(tiny_policy) as server:
        yield server.url


@pytest.fixture
def asked(url: str) -> Iterator[Callable[[Mapping[str, Any] | bytes | str], dict[str, Any]]]:
    """Sends what a client may send, as it is, and gives the answer."""
    with connect(url, compression=None) as connection:
        assert unpack(connection.recv())["type"] == "hello"

        def ask(message: Mapping[str, Any] | bytes | str) -> dict[str, Any]:
            connection.send(msgpack.packb(message) if isinstance(message, Mapping) else message)
            return unpack(connection.recv(timeout=30.0))

        yield ask


# --- acting ---------------------------------------------------------------------------------------------


def test_a_client_acts_as_the_policy_itself(
    url: str, new_tiny_policy: Callable[..., RobotPolicy], observation: Observation
) -> None:
    here = new_tiny_policy()
    with PolicyClient(url) as there:
        for seed in (3, 4):
            here.reset(seed)
            there.reset(seed)
            for _ in range(5):  # more than one chunk
                np.testing.assert_allclose(
                    there.select_action(observation), here.select_action(observation), atol=1e-6
                )
            chunk = there.predict_action_chunk(observation)
            np.testing.assert_allclose(chunk, here.predict_action_chunk(observation), atol=1e-6)
        assert there.milliseconds > 0.0


def test_the_server_tells_what_it_needs(url: str) -> None:
    with PolicyClient(url) as client:
        assert client.metadata == Metadata(
            name="tiny",
            observation={"observation.state": Part("float32", (5,))},
            tasks=("open the drawer", "push the button"),
            action_dim=3,
            horizon=6,
            execute=2,
            fps=20.0,
            robot_type="test arm",
        )


def test_two_clients_have_two_episodes(
    url: str, new_tiny_policy: Callable[..., RobotPolicy], observation: Observation
) -> None:
    def alone(seed: int) -> list[np.ndarray]:
        policy = new_tiny_policy()
        policy.reset(seed)
        return [policy.select_action(observation) for _ in range(6)]

    with PolicyClient(url) as first, PolicyClient(url) as second:
        first.reset(1)
        mixed: dict[int, list[np.ndarray]] = {1: [first.select_action(observation)], 2: []}
        second.reset(2)  # in the middle of the first one's chunk
        for _ in range(5):
            mixed[1].append(first.select_action(observation))
            mixed[2].append(second.select_action(observation))
    np.testing.assert_allclose(mixed[1], alone(1), atol=1e-6)
    np.testing.assert_allclose(mixed[2], alone(2)[:5], atol=1e-6)
    assert not np.allclose(mixed[1][:5], mixed[2])


def test_clients_at_the_same_moment_are_all_answered(
    url: str, new_tiny_policy: Callable[..., RobotPolicy], observation: Observation
) -> None:
    chunks: dict[int, np.ndarray] = {}

    def act(seed: int) -> None:
        with PolicyClient(url) as client:
            client.reset(seed)
            chunks[seed] = client.predict_action_chunk(observation)

    threads = [threading.Thread(target=act, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    policy = new_tiny_policy()
    for seed in range(6):
        policy.reset(seed)
        np.testing.assert_allclose(chunks[seed], policy.predict_action_chunk(observation), atol=1e-6)


def test_pictures_travel(new_tiny_policy: Callable[..., RobotPolicy], observation: Observation) -> None:
    policy = new_tiny_policy(cameras=("top",))
    picture = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    seen = {**observation, "observation.images.top": picture, "observation.images.unused": picture}
    with serving(policy) as server, PolicyClient(server.url) as client:
        assert client.metadata.observation["observation.images.top"] == Part("uint8", (None, None, 3))
        chunk = client.predict_action_chunk(seen)
        policy.reset(0)
        np.testing.assert_allclose(chunk, policy.predict_action_chunk(seen), atol=1e-6)
        with pytest.raises(InputError, match=r"observation\.images\.top: is float32; expected uint8"):
            client.select_action({**seen, "observation.images.top": picture.astype(np.float32)})
        with pytest.raises(InputError, match=r"lacks observation\.images\.top"):
            client.select_action(observation)


# --- refusing -------------------------------------------------------------------------------------------


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


def test_a_message_that_is_too_long_is_refused(tiny_policy: RobotPolicy, observation: Observation) -> None:
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


def test_a_web_page_is_refused(url: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(url, origin="https://example.org")
    assert refused.value.response.status_code == 403


def test_a_client_says_that_nobody_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(PolyditError, match=r"no policy's server answers .* robopolicy serve"):
            PolicyClient(f"ws://127.0.0.1:{port}")
    with pytest.raises(InputError, match="ws://HOST:PORT"):
        PolicyClient("http://127.0.0.1:1")


def test_a_client_does_not_wait_for_ever_and_takes_no_late_answer(observation: Observation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(PolyditError, match="no policy's server answers"):
            PolicyClient(address, timeout=0.2)


def test_a_lost_connection_is_said(tiny_policy: RobotPolicy, observation: Observation) -> None:
    with serving(tiny_policy) as server:
        client = PolicyClient(server.url)
    for _ in range(2):
        with pytest.raises(PolyditError, match=r"the connection is lost: .*Make a new PolicyClient"):
            client.select_action(observation)


def test_a_server_of_another_version_is_refused() -> None:
    from websockets.sync.server import serve

    def older(connection: Any) -> None:
        connection.send(pack({"type": "hello", "protocol": 0, "version": "0.0.1"}))

    with serve(older, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with pytest.raises(InputError, match="version 0 of the protocol; expected version 1"):
            PolicyClient(f"ws://127.0.0.1:{server.socket.getsockname()[1]}")
        server.shutdown()
        thread.join(10.0)


def test_without_the_extra_the_message_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "polydit-robopolicy\[serve\]"'):
        PolicyClient("ws://127.0.0.1:1")


# --- messages -------------------------------------------------------------------------------------------


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


# --- tokens ---------------------------------------------------------------------------------------------


def token_file(folder: Path, text: str = SECRET + "\n", mode: int = 0o600) -> Path:
    file = folder / "token.txt"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_only_the_right_token_is_let_in(tiny_policy: RobotPolicy, observation: Observation) -> None:
    told: list[str] = []
    with serving(tiny_policy, token=Token(SECRET), tell=told.append) as server:
        for wrong in (None, SECRET + "x", SECRET[:-1], SECRET.upper()):
            with pytest.raises(InputError, match="HTTP 401") as caught:
                PolicyClient(server.url, wrong)
            assert SECRET not in str(caught.value)
        double = [("Authorization", f"Bearer {SECRET}"), ("Authorization", "Bearer other")]
        for headers in (double, [("Authorization", SECRET)], [("Authorization", f"Basic {SECRET}")]):
            with pytest.raises(InvalidStatus):
                connect(server.url, additional_headers=headers)
        with PolicyClient(server.url, SECRET) as client:
            assert client.select_action(observation).shape == (3,)
    assert sum("was refused" in line for line in told) == 7
    assert not any(SECRET in line for line in told)


def test_a_token_does_not_show_itself() -> None:
    assert SECRET not in repr(Token(SECRET))
    for bad in (
        "short",
        "with blanks in the middle of it",
        "ünïcödé-is-no-header",
        "x" * 2000,
        "two\nlines" * 3,
    ):
        with pytest.raises(InputError) as caught:
            Token(bad, "token.txt")
        assert bad not in str(caught.value) and "token.txt" in str(caught.value)


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    assert find_token(None, {}) is None
    assert find_token(None, {"ROBOPOLICY_TOKEN": SECRET}) == Token(SECRET, "ROBOPOLICY_TOKEN")
    file = token_file(tmp_path)
    found = find_token(file, {"ROBOPOLICY_TOKEN": "another-secret-of-sixteen"})
    assert found is not None and found.accepts(f"Bearer {SECRET}")


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such mode there")
def test_a_token_that_others_can_read_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="chmod 600"):
        find_token(token_file(tmp_path, mode=0o640), {})


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False),
     ("::", False), ("192.168.0.7", False), ("robot.lab", False), ("", False)],
)  # fmt: skip
def test_only_this_machine_needs_no_token(host: str, alone: bool, tiny_policy: RobotPolicy) -> None:
    assert is_loopback(host) is alone
    if not alone:
        with pytest.raises(InputError, match="expected a token"):
            PolicyServer(Failing, Metadata.of(tiny_policy, "x"), host=host, port=0)


# --- the command ----------------------------------------------------------------------------------------


@contextmanager
def command(folder: Path, *arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    program = Path(sys.executable).parent / "robopolicy"
    line = [program, "serve", "--checkpoint", folder, "--port", 0, "--device", "cpu", *arguments]
    process = subprocess.Popen(
        [str(word) for word in line],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_serves_until_it_is_stopped(
    number: int, code: int, tiny_folder: Path, observation: Observation
) -> None:
    with command(tiny_folder, "--json", ROBOPOLICY_TOKEN=SECRET) as process:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        assert (started["event"], started["checkpoint"], started["token"]) == ("listening", "tiny", True)
        client = PolicyClient(started["url"], SECRET)  # still connected when the server is stopped
        assert client.select_action(observation).shape == (3,)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30.0)
        assert process.returncode == code, errors
        assert "came" in errors and "after 1 answers" in errors
        assert "Traceback" not in errors and SECRET not in errors
        with pytest.raises(PolyditError, match="the connection is lost"):
            client.select_action(observation)


def test_wrong_options_are_found_before_any_weight(
    invoke: Callable[..., Result], tiny_folder: Path, tmp_path: Path
) -> None:
    from polydit.robopolicy.cli import robopolicy

    def refused(*arguments: object, **environment: str) -> str:
        result = invoke(robopolicy, "serve", *arguments, **environment)
        assert result.exit_code == 2, result.output
        assert SECRET not in result.output
        return result.stderr

    assert "expected a token in --token-file" in refused("--host", "0.0.0.0", "--checkpoint", tiny_folder)
    assert "--token-file" in refused("--token", SECRET)  # a command line is seen by everyone on the machine
    assert "No such file" in refused("--token-file", tmp_path / "none")
    assert "this is no token" in refused("--token-file", token_file(tmp_path, "short"))
    assert "no such folder" in refused("--checkpoint", "nowhere")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "cannot listen there" in refused(
            "--checkpoint", tiny_folder, "--port", port, "--device", "cpu"
        )
