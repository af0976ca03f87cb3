"""Firefox and WebKitGTK (the nearest to Safari), as far as the page's tests need them.

Firefox is driven by Marionette, the protocol it has built in; WebKitGTK's MiniBrowser by WebKitWebDriver, within Xvfb.
"""

import base64
import glob
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request


def free_port():
    """A port that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process):
    """Ends a child."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Firefox:
    """Firefox without a window, with a profile of its own."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="pandaproxy-firefox-")
        port = free_port()
        with open(self.profile + "/user.js", "w", encoding="utf-8") as file:
            for name, value in {"marionette.port": port, "app.update.disabledForTesting": True, "network.proxy.type": 0,
                                "browser.shell.checkDefaultBrowser": False, "datareporting.policy.dataSubmissionEnabled": False,
                                "media.autoplay.default": 0, "toolkit.telemetry.reportingpolicy.firstRun": False}.items():
                file.write(f"user_pref({json.dumps(name)}, {json.dumps(value)});\n")
        self.process = subprocess.Popen(["firefox-esr", "--headless", "--marionette", "--no-remote", "--remote-allow-system-access", "--profile", self.profile],
                                        env={**os.environ, "HOME": self.profile, "MOZ_CRASHREPORTER_DISABLE": "1"},
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise
                time.sleep(0.2)
        self.socket.settimeout(120)
        self.file = self.socket.makefile("rb")
        self.receive()
        self.number = 0
        self.call("WebDriver:NewSession", capabilities={})
        self.call("WebDriver:SetTimeouts", script=30000, pageLoad=60000)

    def receive(self):
        """The next message: its length, a colon, and JSON."""
        digits = b""
        while (byte := self.file.read(1)) != b":":
            if not byte:
                raise RuntimeError("Firefox has ended")
            digits += byte
        return json.loads(self.file.read(int(digits)))

    def call(self, command, **parameters):
        """Sends a command and returns its result."""
        self.number += 1
        message = json.dumps([0, self.number, command, parameters]).encode()
        self.socket.sendall(b"%d:%s" % (len(message), message))
        while True:
            _, number, error, result = self.receive()
            if number != self.number:
                continue
            if error:
                raise RuntimeError(f"{command}: {error['error']}: {error['message']}")
            return result.get("value") if isinstance(result, dict) and set(result) == {"value"} else result

    def open(self, url):
        """Loads a page."""
        self.call("WebDriver:Navigate", url=url)

    def size(self, width, height):
        """Makes the window so large."""
        self.call("WebDriver:SetWindowRect", width=width, height=height)

    def run(self, script, asynchronous=False):
        """Runs a function body."""
        kind = "WebDriver:ExecuteAsyncScript" if asynchronous else "WebDriver:ExecuteScript"
        return self.call(kind, script=script, args=[])

    def picture(self):
        """The whole page as a PNG."""
        return base64.b64decode(self.call("WebDriver:TakeScreenshot", full=True, hash=False))

    def problems(self, url):
        """What the console says about this site."""
        self.call("Marionette:SetContext", value="chrome")
        try:
            return self.run(f"""return Services.console.getMessageArray()
                .filter(it => it instanceof Ci.nsIScriptError && (it.sourceName || '').startsWith({json.dumps(url)}))
                .map(it => it.errorMessage)""")
        finally:
            self.call("Marionette:SetContext", value="content")

    def close(self):
        """Ends the browser and deletes its profile."""
        self.file.close()
        self.socket.close()
        end(self.process)
        shutil.rmtree(self.profile, ignore_errors=True)


class WebKit:
    """WebKitGTK's MiniBrowser on a screen that is not there."""

    def __init__(self):
        self.home = tempfile.mkdtemp(prefix="pandaproxy-webkit-")
        reading, writing = os.pipe()
        self.screen = subprocess.Popen(["Xvfb", "-displayfd", str(writing), "-screen", "0", "1400x1000x24", "-nolisten", "tcp"],
                                       pass_fds=[writing], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(writing)
        display = os.read(reading, 16).decode().strip()
        os.close(reading)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/session"
        self.log = open(self.home + "/log", "w+b")
        self.driver = subprocess.Popen(["WebKitWebDriver", f"--port={port}"], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                       env={**os.environ, "DISPLAY": ":" + display, "HOME": self.home, "WEBKIT_DISABLE_DMABUF_RENDERER": "1",
                                            "XDG_RUNTIME_DIR": self.home, "LIBGL_ALWAYS_SOFTWARE": "1",
                                            # As Chromium's --no-sandbox: a container has no namespaces to give.
                                            "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1"})
        until = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0 or time.monotonic() > until:
                    break
            time.sleep(0.1)
        browser = glob.glob("/usr/lib/*/webkit2gtk-4.*/MiniBrowser")[0]
        options = {"webkitgtk:browserOptions": {"binary": browser, "args": ["--automation", "--autoplay-policy=allow"]}}
        try:
            self.session = self.post("", capabilities={"alwaysMatch": options})["sessionId"]
        except Exception:
            self.log.seek(0)
            print(self.log.read().decode(errors="replace")[-1000:], flush=True)
            self.close()
            raise

    def post(self, path, **parameters):
        """Sends a command and returns its value."""
        request = urllib.request.Request(self.url + path, json.dumps(parameters).encode(), {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.read().decode()[:500]}") from None

    def open(self, url):
        """Loads a page, with a console that is kept."""
        self.post(f"/{self.session}/url", url=url)

    def size(self, width, height):
        """Makes the window so large."""
        self.post(f"/{self.session}/window/rect", width=width, height=height)

    def run(self, script, asynchronous=False):
        """Runs a function body."""
        return self.post(f"/{self.session}/execute/" + ("async" if asynchronous else "sync"), script=script, args=[])

    def picture(self):
        """What is seen of the page as a PNG."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/{self.session}/screenshot", timeout=60) as answer:
            return base64.b64decode(json.load(answer)["value"])

    def problems(self, _url):
        """What the console says cannot be asked for; the browser writes it to its output."""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").splitlines()
        return [line for line in lines if line.startswith("CONSOLE") and ("ERROR" in line or "WARN" in line)]

    def close(self):
        """Ends everything."""
        end(self.driver)
        end(self.screen)
        self.log.close()
        shutil.rmtree(self.home, ignore_errors=True)


class Page:
    """The one page of such a browser."""

    def __init__(self, browser):
        self.browser = browser
        self.url = ""

    @property
    def problems(self):
        """What the browser complains about."""
        return self.browser.problems(self.url)

    def size(self, width, height):
        """Makes the window so large."""
        self.browser.size(width, height)

    def open(self, url):
        """Loads a page."""
        self.url = url
        self.browser.open(url)

    def value(self, script):
        """What an expression of JavaScript is."""
        return self.browser.run(f"return ({script})")

    def pump(self, seconds):
        """Waits."""
        time.sleep(seconds)

    def until(self, script, seconds):
        """Whether an expression becomes true in time."""
        until = time.monotonic() + seconds
        while not self.value(script):
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True

    def shot(self, path):
        """Saves the page as a PNG."""
        with open(path, "wb") as file:
            file.write(self.browser.picture())
