"""Who is let in: no web page, from other machines with the token alone; and a token is shown to nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from polydit.core.errors import InputError
from polydit.robopolicy.serve.access import Token, find_token, is_loopback
from polydit.robopolicy.serve.client import PolicyClient
from polydit.robopolicy.serve.metadata import Metadata
from polydit.robopolicy.serve.server import PolicyServer, sharing_weights

if TYPE_CHECKING:
    from polydit.robopolicy.policy import RobotPolicy

SECRET = "a-secret-of-sixteen-or-more"
Observation = Mapping[str, np.ndarray | str]
Serving = Callable[..., AbstractContextManager[PolicyServer]]


def token_file(folder: Path, mode: int = 0o600) -> Path:
    file = folder / "token.txt"
    file.write_text(SECRET + "\n")
    file.chmod(mode)
    return file


def test_a_web_page_is_refused(url: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(url, origin="https://example.org")
    assert refused.value.response.status_code == 403


def test_only_the_right_token_is_let_in(
    serving: Serving, tiny_policy: RobotPolicy, observation: Observation
) -> None:
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
            PolicyServer(sharing_weights(tiny_policy), Metadata.of(tiny_policy, "x"), host=host, port=0)
