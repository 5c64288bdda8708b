"""A client acts as the policy itself, beside others, and says when no policy, or another one, answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from polydit.core.errors import InputError, MissingExtraError, PolyditError
from polydit.robopolicy.serve import access
from polydit.robopolicy.serve.client import PolicyClient
from polydit.robopolicy.serve.messages import pack
from polydit.robopolicy.serve.metadata import Metadata, Part
from polydit.robopolicy.serve.server import PolicyServer

if TYPE_CHECKING:
    from polydit.robopolicy.policy import RobotPolicy

Observation = Mapping[str, np.ndarray | str]
Serving = Callable[..., AbstractContextManager[PolicyServer]]


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


def test_pictures_travel(
    serving: Serving, new_tiny_policy: Callable[..., RobotPolicy], observation: Observation
) -> None:
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


# --- when it cannot act -----------------------------------------------------------------------------------


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


def test_a_lost_connection_is_said(
    serving: Serving, tiny_policy: RobotPolicy, observation: Observation
) -> None:
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
