"""Headless Chromium for tests, over its debugging pipe: real time, real frames, the standard library alone.

`--dump-dom` and `--screenshot` with a virtual time budget draw next to no frames, so animations stand still there.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["Browser", "find_chromium"]

# The pipe has to be file descriptors 3 and 4 of the browser.
_EXEC = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def find_chromium() -> str | None:
    """The browser's program, None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page in one browser, to be used as a context manager.

    Attributes:
        requests: address of everything that the page asked for.
        messages: what the console said: errors, and violations of the page's content security policy among them.
    """

    def __init__(self, profile: Path, *, width: int = 1280, height: int = 900, scale: float = 1, mobile: bool = False):
        program = find_chromium()
        assert program, "no Chromium; ask find_chromium first"
        theirs_in, self._write = _high_pipe()
        self._read, theirs_out = _high_pipe()
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            "--hide-scrollbars",
        ]
        command += [f"--user-data-dir={profile}", "--no-first-run", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _EXEC, str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._number, self._session = b"", 0, ""
        self.requests: list[str] = []
        self.messages: list[str] = []
        pages = self._call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in pages if target["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)
        os.close(self._read)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def open(self, path: Path, *, dark: bool = False) -> None:
        """Load a page from disk and wait until it and its pictures are there."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[feature])
        self._call("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, timeout_s: float = 20) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + timeout_s
        while not self._true(expression):
            assert time.monotonic() < end, f"not true within {timeout_s} s: {expression}; console: {self.messages}"
            time.sleep(0.05)

    def _true(self, expression: str) -> bool:
        try:
            return bool(self.ask(expression))
        except _Gone:  # the question met a page that was just being left
            return False

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save what is on the screen, or the whole page, as PNG."""
        data = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, timeout_s: float = 60, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout_s
        while True:
            answer = self._receive(end, method)
            if answer.get("id") == self._number:
                error = answer.get("error")
                if error and "navigated or closed" in error["message"]:
                    raise _Gone(f"{method}: {error}")
                assert error is None, f"{method}: {error}"
                return answer["result"]
            self._note(answer)

    def _receive(self, end: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{method}: no answer from the browser"
            data = os.read(self._read, 1 << 20)
            assert data, f"{method}: the browser is gone"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event.get("method") == "Log.entryAdded":
            self.messages.append(params["entry"]["text"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.messages.append(params["exceptionDetails"]["text"])
        elif event.get("method") == "Page.javascriptDialogOpening":
            self.messages.append(f"dialog: {params['message']}")


class _Gone(AssertionError):
    """The page was left while the browser was to answer for it."""


def _high_pipe() -> tuple[int, int]:
    """A pipe (read, write) away from descriptors 3 and 4, which the browser wants for itself."""
    low = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    for end in low:
        os.close(end)
    return high
