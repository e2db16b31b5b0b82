"""A headless Chromium for tests: DevTools over a pipe, so that no port, no driver and no package is needed."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60.0
_LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
BROKEN_IMAGES = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0).map(i => i.src)"
WIDER = """[...document.body.querySelectorAll('*')].filter(e => {
  for (let p = e.parentElement; p; p = p.parentElement) if (getComputedStyle(p).overflowX !== 'visible') return false;
  return e.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
}).slice(0, 5).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.trim().slice(0, 60))"""
"""Elements that stick out of the page on the right, but for what scrolls in a box of its own."""


def chromium() -> str:
    """The browser to use; skips the test where there is none."""
    given = os.environ.get("FRUGALSEG_CHROMIUM")
    if given:
        return given
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: install chromium, or name one in FRUGALSEG_CHROMIUM (looked for {', '.join(NAMES)})")
    return found


class Browser:
    """One browser with one page; use it as a context manager.

    Args:
        profile: an empty folder for its own files.
    """

    def __init__(self, profile: Path) -> None:
        self.console: list[str] = []
        self.profile = profile
        self._number, self._rest, self._session = 0, b"", None
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> "Browser":
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read, write)]
        words = [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--remote-debugging-pipe", "--no-first-run", "--disable-extensions", "--disable-background-networking",
                 "--allow-file-access-from-files", f"--user-data-dir={self.profile}", "about:blank"]  # fmt: skip
        launch = [sys.executable, "-c", _LAUNCH, *map(str, ends), *words]
        self._process = subprocess.Popen(launch, pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in (read, write, *ends):
            os.close(end)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._session = None
            self.call("Browser.close")
            self._process.wait(10)
        except (RuntimeError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait(10)
        os.close(self._read)
        os.close(self._write)

    def open(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False, printed: bool = False) -> None:
        """Load a file and wait for everything in it.

        Args:
            path: of the page.
            width: of the window in CSS pixels; below 600 it is that of a phone.
            height: of the window.
            dark: prefer dark colours.
            printed: lay it out as for a printer.
        """
        self.console.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media="print" if printed else "", features=features)
        self._events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self._wait("Page.loadEventFired")
        # a picture that cannot be decoded is found by what looks for it afterwards
        self.evaluate("Promise.allSettled([...document.images].map(i => i.decode())).then(() => 0)")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Write a PNG of the page, or of what the window shows of it."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while True:
            answer = self._next(end)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _wait(self, event: str) -> None:
        end = time.monotonic() + SECONDS
        while not any(found["method"] == event for found in self._events):
            self._next(end)

    def _next(self, end: float) -> dict[str, Any]:
        """The next message; events are kept, and what the console says is noted."""
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._read, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError("the browser does not answer")
            self._rest += part
        raw, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(raw)
        if "method" in message:
            self._events.append(message)
            self._note(message["method"], message["params"])
        return message

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.console.append(f"{params['type']}: {params['args']}")
        elif method == "Runtime.exceptionThrown":
            self.console.append(f"exception: {params['exceptionDetails']}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.console.append(
                f"{params['entry']['level']}: {params['entry']['text']} {params['entry'].get('url', '')}"
            )
        elif method == "Network.loadingFailed":
            self.console.append(f"not loaded: {params['errorText']}")
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(
            ("file:", "data:", "about:")
        ):
            self.console.append(f"asks the network for {params['request']['url']}")


def faults(browser: Browser, path: Path, width: int, printed: bool = False) -> list[str]:
    """Everything that is wrong with a page: console, pictures, and what sticks out of it.

    Args:
        browser: to use.
        path: of the page.
        width: of the window.
        printed: lay it out as for a printer, where nothing may need scrolling.
    """
    browser.open(path, width, printed=printed)
    found = [*browser.console, *(f"picture not loaded: {source}" for source in browser.evaluate(BROKEN_IMAGES))]
    wide = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if wide > 0:
        found.append(f"{wide} px wider than {width}: {browser.evaluate(WIDER)}")
    if printed:
        cut = browser.evaluate(
            "[...document.querySelectorAll('.box, pre, .picture')].filter(e => e.scrollWidth > e.clientWidth + 1)"
            ".map(e => (e.getAttribute('aria-label') || e.textContent.trim().slice(0, 60)) + ' ' + (e.scrollWidth - e.clientWidth))"
        )
        found += [f"cut in print: {each}" for each in cut]
    return found
