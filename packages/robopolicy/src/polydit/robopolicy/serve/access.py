"""Who may talk to a policy: a secret from a file or the environment, which is never shown."""

from __future__ import annotations

import hmac
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from polydit.core.errors import InputError, MissingExtraError

VARIABLE = "ROBOPOLICY_TOKEN"
_MAKE = 'python -c "import secrets; print(secrets.token_urlsafe(32))" > token.txt && chmod 600 token.txt'
_SCHEME = "Bearer "
_MIN, _MAX = 16, 1024  # characters


@dataclass(frozen=True, slots=True)
class Token:
    """A secret.

    Args:
        secret: 16 to 1024 printable ASCII characters without blanks.
        source: The file or variable that it came from, for messages.

    Raises:
        InputError: It is too short, too long, or has other characters. The message does not tell it.
    """

    secret: str = field(repr=False)
    source: str = ""

    def __post_init__(self) -> None:
        printable = self.secret.isascii() and self.secret.isprintable() and " " not in self.secret
        if not _MIN <= len(self.secret) <= _MAX or not printable:
            raise InputError(
                "this is no token",
                where=self.source or None,
                expected=f"one line of {_MIN} to {_MAX} printable characters without blanks",
                hint=f"Make one with: {_MAKE}",
            )

    @property
    def header(self) -> str:
        """The value of the header `Authorization`."""
        return _SCHEME + self.secret

    def accepts(self, header: str) -> bool:
        """Whether a header shows this token; the time that it takes does not tell how much of it is right."""
        return hmac.compare_digest(header.encode("utf-8", "surrogateescape"), self.header.encode())


def require_extra() -> None:
    """Finds out before any work whether the extra `serve` is installed.

    Raises:
        MissingExtraError: It is not.
    """
    for package in ("websockets", "msgpack"):
        if find_spec(package) is None:
            raise MissingExtraError(
                package, "polydit-robopolicy[serve]", purpose="Serving a policy or talking to its server"
            )


def find_token(file: Path | None, environment: Mapping[str, str] = os.environ) -> Token | None:
    """The token in a file, else in ROBOPOLICY_TOKEN, else None.

    Raises:
        InputError: The file cannot be read, others can read it, or it holds no token.
    """
    if file is None:
        secret = environment.get(VARIABLE, "").strip()
        return Token(secret, VARIABLE) if secret else None
    try:
        with file.open(encoding="utf-8") as handle:
            if sys.platform != "win32" and stat.S_IMODE(os.fstat(handle.fileno()).st_mode) & 0o077:
                raise InputError("others can read the token", where=str(file), hint=f"Run: chmod 600 {file}")
            text = handle.read(_MAX + 2)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise InputError(f"the token cannot be read ({reason})", where=str(file)) from None
    return Token(text.strip(), str(file))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at that address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def require_token(host: str, token: Token | None) -> None:
    """Refuse to listen to other machines without a token.

    Raises:
        InputError: As the sentence above says.
    """
    if token is None and not is_loopback(host):
        raise InputError(
            "whoever reaches this address could drive the policy",
            where=f"--host {host}",
            expected=f"a token in --token-file or in {VARIABLE}",
            hint=f"Make one with: {_MAKE}",
        )
