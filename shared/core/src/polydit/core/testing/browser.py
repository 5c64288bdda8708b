"""A real browser for tests: Chromium without a window, spoken to through its own pipe, no library needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip
_PATIENCE_S = 60.0


def find_chromium() -> str | None:
    """The browser's path; None where there is none (on Debian: apt-get install chromium)."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """A browser with one page at a time. Made by `start_browser`.

    Attributes:
        complaints: What the page wrote to the console as warning or error, and uncaught exceptions.
        requests: Addresses that the page asked for.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._received = b""
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol; returns its result.

        Raises:
            RuntimeError: The browser refused it, or did not answer in time.
        """
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next_message()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, page: Path, *, dark: bool = False, width: int = 1200, height: int = 900) -> None:
        """Loads a page from disk in a new tab and waits until it says `window.ready`."""
        self._session = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.complaints, self.requests = [], []
        self.prefer(dark=dark)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Page.navigate", url=page.resolve().as_uri())
        self.wait_for("window.ready === true")

    def prefer(self, *, dark: bool) -> None:
        """What the page is told that the user prefers."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def wait_for(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self.evaluate(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{condition} did not come true; the page complained: {self.complaints}")
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression (of its promise, if it is one).

        Raises:
            RuntimeError: The expression threw.
        """
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Presses the mouse at `start`, moves to `end` in steps, lets go."""
        self._mouse("mousePressed", start)
        for k in range(1, 6):
            x, y = (a + (b - a) * k / 5 for a, b in zip(start, end, strict=True))
            self._mouse("mouseMoved", (x, y))
        self._mouse("mouseReleased", end)

    def double_click(self, at: tuple[float, float]) -> None:
        """Two clicks at one place."""
        for count in (1, 2):
            self._mouse("mousePressed", at, count)
            self._mouse("mouseReleased", at, count)

    def wheel(self, at: tuple[float, float], delta: int) -> None:
        """Turns the mouse wheel; positive is down."""
        self.send("Input.dispatchMouseEvent", type="mouseWheel", x=at[0], y=at[1], deltaX=0, deltaY=delta)

    def key(self, name: str) -> None:
        """Presses and releases a key, such as "Enter" or "ArrowLeft"."""
        text = {"Enter": "\r"}.get(name, name if len(name) == 1 else "")
        self.send("Input.dispatchKeyEvent", type="keyDown", key=name, text=text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=name)

    def screenshot(self) -> bytes:
        """What is to be seen, as a PNG file."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def _mouse(self, kind: str, at: tuple[float, float], count: int = 1) -> None:
        button = {"button": "left", "buttons": 1, "clickCount": count}
        self.send("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], **button)

    def _next_message(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            chunk = os.read(self._from, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser went away")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, content: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(content["exceptionDetails"]))
        elif event == "Log.entryAdded" and content["entry"]["level"] in ("warning", "error"):
            self.complaints.append(content["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and content["type"] in ("warning", "error", "assert"):
            self.complaints.append(str(content["args"]))


@contextmanager
def start_browser() -> Iterator[Browser]:
    """A browser of its own with a fresh profile, which ends with the block.

    Raises:
        FileNotFoundError: There is no Chromium here.
    """
    chromium = find_chromium()
    if chromium is None:
        raise FileNotFoundError("chromium is not installed")
    read_end, to_browser = os.pipe()
    from_browser, write_end = os.pipe()
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The browser reads commands from descriptor 3 and answers on 4; only a shell can number them.
        command = ["bash", "-c", f'exec "$@" 3<&{read_end} 4>&{write_end}', "bash"]
        process = subprocess.Popen(
            [*command, chromium, *_FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(read_end, write_end),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_end)
        os.close(write_end)
        try:
            yield Browser(to_browser, from_browser)
        finally:
            process.terminate()
            process.wait(timeout=_PATIENCE_S)
            os.close(to_browser)
            os.close(from_browser)
