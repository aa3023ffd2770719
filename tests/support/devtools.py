"""Drives Chromium by the DevTools protocol over a pair of pipes, which needs no library."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time

from tests.support.browser import CHROMIUM, FLAGS


class Browser:
    """A page in Chromium.

    Attributes:
      requests: addresses that the page requested, or tried to.
      errors: what it logged as errors, with the address.
    """

    def __init__(self, tmp_path, width=1280, height=1000):
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        self._number, self._buffer = 0, b""
        self.requests, self.errors = [], []

        # Where --remote-debugging-pipe expects them. A preexec_fn would fork this process with its threads.
        move = "import os, sys; os.dup2(int(sys.argv[1]), 13); os.dup2(int(sys.argv[2]), 4); os.dup2(13, 3)"
        command = [sys.executable, "-ISc", f"{move}; os.execv(sys.argv[3], sys.argv[3:])"]
        command += [str(to_read), str(to_write), CHROMIUM, *FLAGS, "--remote-debugging-pipe"]
        command += [
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},{height}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            command, pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        self._session = None
        targets = self.do("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.do("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "DOM", "Log"):
            self.do(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session = None
        with contextlib.suppress(Exception):
            self.do("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def do(self, method, **parameters):
        """Sends a command and returns its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(60)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self, seconds):
        """Reads the next message, and records events of the page."""
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            self._buffer += os.read(self._read, 1 << 20)
        line, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(line)
        parameters = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append((parameters["entry"]["text"], parameters["entry"].get("url")))
        elif message.get("method") == "Runtime.exceptionThrown":
            self.errors.append((parameters["exceptionDetails"]["text"], None))
        return message

    def open(self, url):
        self.do("Page.navigate", url=url)

    def evaluate(self, expression):
        """Returns the value of a JavaScript expression."""
        answer = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression, seconds=60):
        """Waits until an expression has a value that counts as true, and returns it."""
        script = f"(() => {{ try {{ const x = {expression}; return x instanceof Node || x }} catch {{}} }})()"
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f"{expression}: not in {seconds} seconds: {self.text()[:2000]}"
            time.sleep(0.1)
        return value

    def text(self):
        return self.evaluate("document.body.innerText")

    def upload(self, selector, path):
        """Chooses a file for an input."""
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.do("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def click(self, selector):
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector, value):
        """Replaces the value of an input, and leaves it."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.focus(); {element}.select()")
        self.do("Input.insertText", text=str(value))
        self.evaluate(f"{element}.blur()")
