"""Headless Chromium, driven by its own debugging protocol over a pipe."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path")

FLAGS = [
    "--headless=new",
    "--no-sandbox",  # which a container has no permission to make
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
]


class Page:
    """One tab: what it shows, what it asked for, and what went wrong in it."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Send a command and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def open(self, url: str, *, width: int = 1280, dark: bool = False) -> None:
        """Show a page on a screen of this width, and wait until it has loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"]["description"])
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 30) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"Still false after {seconds} s: {expression}")
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """Save what the screen shows as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._receive, 1 << 16)
            if not part:
                raise RuntimeError("Chromium ended.")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        note: dict[str, Callable[[], None]] = {
            "Network.requestWillBeSent": lambda: self.requests.append(params["request"]["url"]),
            "Runtime.exceptionThrown": lambda: self.errors.append(str(params["exceptionDetails"])),
            "Log.entryAdded": lambda: self._note_entry(params["entry"]["level"], params["entry"]),
            "Runtime.consoleAPICalled": lambda: self._note_entry(params["type"], params["args"]),
        }
        note.get(event.get("method", ""), lambda: None)()

    def _note_entry(self, level: str, content: object) -> None:
        if level in ("error", "warning", "assert"):
            self.errors.append(f"{level}: {content}")


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Start Chromium with an empty profile, and end it with everything it started."""
    if CHROMIUM is None:
        raise FileNotFoundError("Expected chromium on the path. Found none.")
    to_chromium, send = os.pipe()
    receive, from_chromium = os.pipe()
    # The protocol is on descriptors 3 and 4, which only a shell can put there for us.
    shell = f'exec "$@" 3<&{to_chromium} 4>&{from_chromium}'
    command = ["bash", "-c", shell, "-", CHROMIUM, *FLAGS, f"--user-data-dir={profile}"]
    with subprocess.Popen(  # noqa: S603
        command, pass_fds=(to_chromium, from_chromium), stderr=subprocess.DEVNULL
    ) as process:
        os.close(to_chromium)
        os.close(from_chromium)
        try:
            page = Page(send, receive)
            yield page
            page._session = None
            page.call("Browser.close")
        finally:
            os.close(send)
            os.close(receive)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
