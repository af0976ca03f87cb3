"""Chromium without a window, driven by its DevTools protocol over a pair of pipes."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time


class Browser:
    """One Chromium, with a profile of its own that is deleted at the end."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="pandaproxy-browser-")
        to_browser, self.write_end = os.pipe()
        self.read_end, from_browser = os.pipe()

        def wire():
            # Chromium reads descriptor 3 and writes descriptor 4. Copies first: the pipes may have these numbers.
            reading, writing = os.dup(to_browser), os.dup(from_browser)
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        self.process = subprocess.Popen(
            ["chromium", "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", "--no-proxy-server",
             "--hide-scrollbars",
             "--user-data-dir=" + self.profile, "about:blank"],
            preexec_fn=wire, close_fds=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.waiting = b""
        self.number = 0
        self.pages = {}

    def close(self):
        """Ends the browser and deletes its profile."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.write_end)
        os.close(self.read_end)
        shutil.rmtree(self.profile, ignore_errors=True)

    def receive(self, seconds):
        """The next message, or None."""
        until = time.monotonic() + seconds
        while b"\0" not in self.waiting:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.read_end], [], [], left)[0]:
                return None
            got = os.read(self.read_end, 1 << 16)
            if not got:
                raise RuntimeError("Chromium has ended")
            self.waiting += got
        message, self.waiting = self.waiting.split(b"\0", 1)
        return json.loads(message)

    def send(self, method, session=None, **parameters):
        """Sends a command, and returns the number that its answer will have."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        os.write(self.write_end, json.dumps(command).encode() + b"\0")
        return self.number

    def call(self, method, session=None, **parameters):
        """Sends a command and returns its result. Events that come before it go to their tabs."""
        number = self.send(method, session, **parameters)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            message = self.receive(until - time.monotonic())
            if message is None:
                break
            if "method" in message:
                self.dispatch(message)
            elif message.get("id") != number:
                continue
            elif "error" in message:
                raise RuntimeError(f"{method}: {message['error']['message']}")
            else:
                return message["result"]
        raise RuntimeError(f"{method}: no answer within 30 s")

    def dispatch(self, event):
        """Gives an event to its tab."""
        if event.get("sessionId") in self.pages:
            self.pages[event["sessionId"]].handle(event["method"], event["params"])


class Page:
    """One tab."""

    def __init__(self, browser, credentials=()):
        """Opens a tab that answers a question for a password so. Without credentials it cancels the question."""
        self.browser = browser
        self.credentials = credentials
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        self.problems = []
        self.requests = []
        browser.pages[self.session] = self
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.call("Fetch.enable", handleAuthRequests=True)

    def call(self, method, **parameters):
        """Sends a command for this tab."""
        return self.browser.call(method, self.session, **parameters)

    def pump(self, seconds):
        """Handles events for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            message = self.browser.receive(left)
            if message and "method" in message:
                self.browser.dispatch(message)

    def handle(self, method, details):
        """Notes what the browser complains about, and answers its question for a password."""
        if method == "Runtime.exceptionThrown":
            thrown = details["exceptionDetails"]
            self.problems.append(thrown.get("exception", {}).get("description", thrown["text"]))
        elif method == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning", "assert"):
            self.problems.append(" ".join(str(a.get("value")) for a in details["args"]))
        elif method == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{details['entry']['text']} ({details['entry'].get('url')})")
        elif method == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])
        elif method == "Fetch.requestPaused":
            self.reply("Fetch.continueRequest", requestId=details["requestId"])
        elif method == "Fetch.authRequired":
            answer = {"response": "CancelAuth"}
            if self.credentials:
                user, password = self.credentials
                answer = {"response": "ProvideCredentials", "username": user, "password": password}
            self.reply("Fetch.continueWithAuth", requestId=details["requestId"], authChallengeResponse=answer)

    def reply(self, method, **parameters):
        """Sends a command whose result does not matter."""
        self.browser.send(method, self.session, **parameters)

    def size(self, width, height, phone=False, dark=False):
        """Makes the window so large, and light or dark."""
        self.window = (width, height, phone, dark)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, url):
        """Loads a page."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.protocol !== 'about:'", 15)

    def value(self, script):
        """What an expression of JavaScript is."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    def until(self, script, seconds):
        """Whether an expression becomes true in time."""
        until = time.monotonic() + seconds
        while not self.value(script):
            if time.monotonic() > until:
                return False
            self.pump(0.1)
        return True

    def press(self, key, code=None, shift=False):
        """Presses a key and lets it go."""
        codes = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37, " ": 32}
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key,
                      windowsVirtualKeyCode=codes[key], modifiers=8 if shift else 0)

    def shot(self, path):
        """Saves the whole page as a PNG. The window is made as high as the page, so that nothing in it pauses."""
        width, height, phone, dark = self.window
        tall = self.call("Page.getLayoutMetrics")["cssContentSize"]["height"]
        self.size(width, max(height, tall), phone, dark)
        self.pump(0.5)
        picture = self.call("Page.captureScreenshot", format="png")
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))
        self.size(width, height, phone, dark)

    def close(self):
        """Closes the tab."""
        self.browser.call("Target.closeTarget", targetId=self.target)
