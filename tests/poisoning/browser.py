"""A headless Chromium for tests, driven through its debugging pipe: no driver, no package, no port.

Chromium reads commands from file descriptor 3 and answers on 4: JSON, each message ended by a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # root in a container has no other way; the only page it opens is ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--force-color-profile=srgb",
)


def find() -> str | None:
    """The path of a Chromium or Chrome on this machine."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found or (str(MAC) if MAC.exists() else None)


class Browser:
    """One page. What it asks for and complains about is collected in `requests` and `complaints`."""

    def __init__(self, program: str, profile: Path) -> None:
        to_browser, commands = os.pipe()
        answers, from_browser = os.pipe()
        # bash gives the two pipes the numbers that Chromium wants
        redirect = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", redirect, "bash", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.commands, self.answers = commands, answers
        self.waiting = b""
        self.number = 0
        self.session = ""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.loaded = False
        targets = self.do("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self.do("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the Chrome DevTools protocol and wait for its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.commands, data) :]
        while (answer := self.receive()).get("id") != self.number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def receive(self, timeout: float = 60) -> dict[str, Any]:
        """The next message; events are noted on the way."""
        until = time.monotonic() + timeout
        while b"\0" not in self.waiting:
            ready = select.select([self.answers], [], [], max(0, until - time.monotonic()))[0]
            assert ready, f"Chromium said nothing for {timeout:.0f} seconds"
            part = os.read(self.answers, 1 << 20)
            assert part, "Chromium ended"
            self.waiting += part
        one, self.waiting = self.waiting.split(b"\0", 1)
        message: dict[str, Any] = json.loads(one)
        self.note(message.get("method", ""), message.get("params", {}))
        return message

    def note(self, event: str, what: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
        elif event == "Runtime.consoleAPICalled":
            self.complaints.append(f"console.{what['type']}: {what['args']}")
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {what['exceptionDetails']}")
        elif event == "Log.entryAdded":
            self.complaints.append(f"{what['entry']['level']}: {what['entry']['text']}")
        elif event == "Page.loadEventFired":
            self.loaded = True

    def open(self, page: Path) -> None:
        """Load a file and wait until all of it is there."""
        self.requests, self.complaints, self.loaded = [], [], False
        self.do("Page.navigate", url=page.as_uri())
        while not self.loaded:
            self.receive()

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression (or of the promise that it gives)."""
        answer = self.do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release one key, as a person does."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.do("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.do("Input.dispatchKeyEvent", type="keyUp", **common)

    def width(self, pixels: int, height: int = 900) -> None:
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=pixels,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def media(self, kind: str = "screen", scheme: str = "light") -> None:
        """Show the page as on a screen or on paper ("print"), with the light or the dark colours."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.do("Emulation.setEmulatedMedia", media=kind, features=features)

    def screenshot(self) -> bytes:
        """A PNG of the whole page."""
        data = self.do("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        return base64.b64decode(data)

    def pdf(self) -> bytes:
        """The page as it is printed on A4."""
        self.do("Emulation.setEmulatedMedia", media="")
        data = self.do("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=False)["data"]
        return base64.b64decode(data)

    def close(self) -> None:
        os.close(self.commands)  # Chromium ends when its pipe does
        os.close(self.answers)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
