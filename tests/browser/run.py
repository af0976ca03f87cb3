#!/usr/bin/env python3
"""The status page in Chromium, before the real program and simulated printers: a P1S and an X1C.

Needs chromium, curl and mosquitto_sub. Prints a line for each test that fails, and `N passed, N failed`.
With --browser firefox (firefox-esr) or webkit (webkit2gtk-driver, xvfb, gstreamer1.0-libav) it runs what tells browsers apart:
the page, both pictures, a client that joins, and a printer that is off.
"""

import argparse
import contextlib
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.dont_write_bytecode = True
import webdriver  # noqa: E402
from devtools import Browser, Page  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE = "7Kq2xW9p"
TOKEN = "wall-display-1"
# What a client may call itself.
HOSTILE = "<img src=x onerror=document.title='taken'>"

passed = failed = 0


def check(name, holds, details=""):
    """Counts a test."""
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print(f"FAILED {name}: {details}" if details else f"FAILED {name}", flush=True)


class Program:
    """A child whose lines are kept."""

    def __init__(self, *command):
        self.lines = []
        self.child = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", env={"PATH": os.environ["PATH"]})
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        """Collects what it prints."""
        for line in self.child.stdout:
            self.lines.append(line)

    def find(self, pattern, seconds=30):
        """The first group of the first line that matches."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found.group(1)
            time.sleep(0.05)
        raise RuntimeError(f"no line like {pattern!r}:\n" + "".join(self.lines[-20:]))

    def stop(self):
        """Ends it."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


class Bench:
    """A simulated printer and the program before it."""

    def __init__(self, model, target, *more):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pandaproxy-page-"))
        camera = ["--camera-port=0", "--fps=4"] if model == "p1s" else ["--rtsp-port=0"]
        self.printer = Program(target / "examples/printer", "--model", model, "--port=0", "--ftp-port=0", "--ftp-rate=100000",
                               "--deltas-every=1000", "--access-code", CODE, *camera)
        self.programs = [self.printer]
        ports = {"mqtt": self.printer.find(r"^listening on .*:(\d+)"), "ftp": self.printer.find(r"^ftp on .*:(\d+)")}
        if model == "p1s":
            ports["chamber"] = self.printer.find(r"^camera listening on .*:(\d+)")
        else:
            ports["rtsp"] = self.printer.find(r"^rtsp listening on .*:(\d+)")
        self.serial = self.printer.find(r"^serial (\S+)")
        # Making the key takes a debug build long; this one is a test's.
        shutil.copy(ROOT / "tests/printer/pki/x1c.key", self.dir / "rsa.key")
        self.proxy = Program(
            target / "pandaproxy", "--printer-ip=127.0.0.1",
            "--printer-port=" + ",".join(f"{name}={port}" for name, port in ports.items()),
            "--printer-ca", ROOT / "tests/printer/pki/ca.pem", "--state-dir", self.dir, "--bind=127.0.0.1",
            "--services=mqtt,camera,ftp,http", "--ftp-mode=proxy", "--ftp-data-ports=21940-21959", "-a", CODE, "-s", self.serial,
            "--http-token", TOKEN, "--name", "Workshop", "--port=mqtt=0,chamber=0,rtsp=0,ftp=0,http=0", *more)
        self.programs.append(self.proxy)
        self.url = "http://127.0.0.1:" + self.proxy.find(r"http +listening on \S+:(\d+)") + "/"
        self.mqtt = self.proxy.find(r"mqtt +listening on \S+:(\d+)")
        self.ftp = self.proxy.find(r"ftp +listening on \S+:(\d+)")

    def client(self, name):
        """An MQTT client with this identifier."""
        client = Program("mosquitto_sub", "-h", "127.0.0.1", "-p", self.mqtt, "-u", "bblp", "-P", CODE,
                         "--cafile", self.dir / "ca.pem", "-i", name, "-t", f"device/{self.serial}/report")
        self.programs.append(client)
        return client

    def upload(self, name):
        """An upload of a file that takes ten seconds."""
        file = self.dir / name
        file.write_bytes(bytes(1000000))
        client = Program("curl", "--silent", "--show-error", "--insecure", "--ssl-reqd", "-u", "bblp:" + CODE,
                         "-T", file, f"ftps://127.0.0.1:{self.ftp}/")
        self.programs.append(client)
        return client

    def listing(self):
        """A list of the files, whose first command has to wait while another client uploads."""
        client = Program("curl", "--silent", "--show-error", "--insecure", "--ssl-reqd", "--list-only", "-u", "bblp:" + CODE,
                         f"ftps://127.0.0.1:{self.ftp}/")
        self.programs.append(client)
        return client

    def stop(self):
        """Ends everything."""
        for program in reversed(self.programs):
            program.stop()
        shutil.rmtree(self.dir, ignore_errors=True)


class Card(http.server.SimpleHTTPRequestHandler):
    """A memory card's page for updates, whose last one became what `last` says, and which answers a sender with `answer`, or not at all."""

    last, answer = "good, slot a, version 1", "wrong admin code"

    def __init__(self, *arguments):
        super().__init__(*arguments, directory=ROOT / "boards/card/root/lib/card/www")

    def do_GET(self):
        """The page, or what became of the last update."""
        if self.path == "/cgi-bin/update":
            self.says(200, self.last)
        else:
            super().do_GET()

    def do_POST(self):
        """An update."""
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.answer:
            self.says(202 if self.headers["X-Admin-Code"] == "letmein-now" else 403, self.answer)
        else:
            self.close_connection = True

    def says(self, status, text):
        """Answers with a text."""
        self.send_response(status)
        self.send_header("Content-Length", len(text))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Prints nothing."""


class Prefix(http.server.BaseHTTPRequestHandler):
    """A reverse proxy that shows the page below /printer/, and notes what is asked for elsewhere."""

    upstream = ""
    elsewhere = []

    def do_GET(self):
        """Forwards a request."""
        if not self.path.startswith("/printer/"):
            self.elsewhere.append(self.path)
            self.send_error(404)
            return
        headers = {name: value for name, value in self.headers.items() if name in ("Authorization", "Accept-Encoding")}
        request = urllib.request.Request(self.upstream + self.path.removeprefix("/printer/"), headers=headers)
        try:
            answer = urllib.request.urlopen(request, timeout=20)
        except urllib.error.HTTPError as error:
            answer = error
        with contextlib.suppress(OSError):
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            self.end_headers()
            while got := answer.read1(1 << 16):
                self.wfile.write(got)
        answer.close()

    def log_message(self, *_):
        """Prints nothing."""


# The colours of each text that is seen, with what is behind it, and whether it is large (WCAG 2.1, 1.4.3).
CONTRAST = """
(() => {
  const parse = text => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1]; };
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.data.trim() || ['SCRIPT', 'NOSCRIPT', 'STYLE'].includes(element.tagName)) continue;
    if (!element.getClientRects().length || element.closest('[hidden]')) continue;
    let behind = element;
    while (behind && parse(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const a = light(parse(style.color)), b = light(parse(getComputedStyle(behind || document.body).backgroundColor));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const least = size >= 24 || size >= 18.66 && style.fontWeight >= 700 ? 3 : 4.5;
    if (ratio < least) found.push(`${ratio.toFixed(2)} ${node.data.trim().slice(0, 40)}`);
  }
  return found;
})()
"""

# What the picture shows, as a number that changes with it.
PIXELS = """
(() => {
  const image = document.querySelector('#frame img, #frame video');
  if (!image || !(image.naturalWidth || image.videoWidth)) return 0;
  const canvas = document.createElement('canvas');
  canvas.width = 64; canvas.height = 36;
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0, 64, 36);
  return context.getImageData(0, 0, 64, 36).data.reduce((sum, byte) => (sum * 31 + byte) % 4294967291, 7);
})()
"""

FOCUSABLE = """
Array.from(document.querySelectorAll('a[href], button, [tabindex="0"]'))
  .filter(node => node.getClientRects().length && node.tabIndex >= 0 && !node.closest('[hidden]')).length
"""

STATE = "document.getElementById('state').dataset.is"
WORD = "document.getElementById('word').textContent"


def looks(page, name, shots):
    """What holds at each width, light and dark."""
    for width, height, phone in ((1280, 900, False), (360, 740, True)):
        for dark in (False, True):
            page.size(width, height, phone, dark)
            page.pump(1)
            kind = f"{name}-{'phone' if phone else 'desktop'}-{'dark' if dark else 'light'}"
            # A phone would show the page smaller: its innerWidth follows the content.
            wide = page.value("document.documentElement.scrollWidth")
            check(f"{kind}: nothing is wider than the window", wide <= width, wide)
            faint = page.value(CONTRAST)
            check(f"{kind}: every text has the contrast of WCAG AA", not faint, faint)
            page.shot(shots / f"{kind}.png")
    page.size(1280, 900)


def keyboard(page):
    """Tab reaches every control, which shows that it has the focus; arrows go through the tabs."""
    page.value("document.activeElement.blur(), scrollTo(0, 0)")
    controls = page.value(FOCUSABLE)
    reached, hidden = set(), []
    # Beyond the last one is the browser's own bar, and then the first again.
    for _ in range(2 * controls + 4):
        page.press("Tab")
        at = page.value("""(() => {
            const node = document.activeElement, style = getComputedStyle(node);
            if (node === document.body) return null;
            return [Array.from(document.querySelectorAll('*')).indexOf(node), style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
        })()""")
        if at:
            reached.add(at[0])
            if not at[1]:
                hidden.append(at[0])
    check("the keyboard reaches every control", len(reached) >= controls > 5, f"{len(reached)} of {controls}")
    check("what has the focus shows it", not hidden, hidden)
    page.value("document.getElementById('tab-studio').focus()")
    seen = []
    for _ in range(4):
        page.press("ArrowRight")
        seen.append(page.value("document.activeElement.id + ' ' + document.getElementById(document.activeElement.getAttribute('aria-controls')).hidden"))
    check("arrows go through the tabs", seen == ["tab-orca false", "tab-ha false", "tab-others false", "tab-studio false"], seen)
    unnamed = page.value("""Array.from(document.querySelectorAll('a[href], button, section, meter, img, video, [role], [tabindex="0"]'))
        .filter(node => !node.closest('[hidden]') && node.getClientRects().length)
        .filter(node => !(node.textContent.trim() || node.alt || node.getAttribute('aria-label') || node.getAttribute('aria-labelledby')))
        .map(node => node.outerHTML.slice(0, 60))""")
    check("everything has a name", not unnamed, unnamed)


def moving(page, name, shots):
    """The picture is there, and changes."""
    first = page.until(f"{PIXELS} !== 0", 15)
    check(f"{name}: there is a picture", first, page.value("document.getElementById('picture-says').textContent"))
    if not first:
        return
    before = page.value(PIXELS)
    check(f"{name}: it moves", page.until(f"{PIXELS} !== {before}", 10))
    if name == "x1c":
        before = page.value("document.querySelector('video').currentTime")
        check("x1c: the video goes on", page.until(f"document.querySelector('video').currentTime > {before} + 2", 15))
    page.value("document.getElementById('pause').click()")
    check(f"{name}: a pause ends the request", page.value("!document.querySelector('#frame img, #frame video')"))
    page.value("document.getElementById('pause').click()")
    check(f"{name}: and it goes on", page.until(f"{PIXELS} !== 0", 15))


def before_a_p1s(browser, target, shots):
    """Everything, with the browser's question for a password."""
    bench = Bench("p1s", target)
    try:
        hostile = bench.client(HOSTILE)
        page = Page(browser, ("bblp", CODE))
        page.size(1280, 900)
        page.open(bench.url)
        check("p1s: the state is good", page.until(f"{STATE} === 'ok'", 20), page.value(WORD))
        check("it says so in words", page.value(WORD) == "Connected to the printer", page.value(WORD))
        name, shown = page.value("document.getElementById('name').textContent"), page.value("document.getElementById('printer').textContent")
        check("the printer is named", name == "Workshop" and "P1S" in shown and bench.serial in shown, (name, shown))
        moving(page, "p1s", shots)

        check("a client's name is text", page.until(f"document.getElementById('services').textContent.includes({HOSTILE!r})", 10),
              page.value("document.getElementById('services').textContent"))
        check("and does nothing", page.value("!document.querySelector('#services img') && document.title !== 'taken'"))
        waits = []
        # Client 1 is there already. The page asks every now and then: one client alone may come right before.
        for number in (2, 3, 4):
            joined = bench.client("just-joined")
            bench.proxy.find(rf"(mqtt {number} \(127\.0\.0\.1\): client connected)")
            began = time.monotonic()
            there = page.until("document.getElementById('services').textContent.includes('just-joined')", 10)
            check("a client that joins appears", there)
            waits.append(time.monotonic() - began)
            joined.stop()
            check("and disappears", page.until("!document.getElementById('services').textContent.includes('just-joined')", 10))
        print("clients that joined were shown after " + ", ".join(f"{wait:.1f} s" for wait in waits), flush=True)
        check("a client that joins appears within two seconds", sorted(waits)[1] < 2, waits)
        hostile.stop()

        files = "document.getElementById('transfers').textContent"
        upload = bench.upload("benchy <b>.gcode.3mf")
        check("an upload is shown", page.until(f"/benchy <b>.*upload of client .* KiB in .* KiB\\/s/.test({files})", 15), page.value(files))
        listing = bench.listing()
        waits = r"PWDcommand of client \d+: waits for the upload of client \d+, place 1 in the queue, since"
        check("what waits is shown with its place", page.until(f"/{waits}/.test({files})", 8), page.value(files))
        page.shot(shots / "p1s-upload.png")
        check("it has been taken", upload.child.wait(60) == 0, upload.lines)
        check("and what waited is served", listing.child.wait(20) == 0, listing.lines)
        check("and is gone", page.until(f"{files} === ''", 8), page.value(files))

        filled = page.value("document.getElementById('connect').textContent")
        check("what a client needs is filled in", bench.serial in filled and re.search(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", filled), filled[:300])
        looks(page, "p1s", shots)
        keyboard(page)
        for tab in ("orca", "ha", "others"):
            page.value(f"document.getElementById('tab-{tab}').click()")
            check(f"tab {tab}: contrast", not page.value(CONTRAST), page.value(CONTRAST))
        links = page.value("Array.from(new Set(Array.from(document.querySelectorAll('#connect a[href]'), link => link.href)))")
        check("its links are there", page.value(f"Promise.all({links!r}.map(link => fetch(link).then(answer => answer.ok))).then(all => all.every(Boolean))"), links)
        check("p1s: nothing on the console", not page.problems, page.problems)
        check("nothing of third parties", all(url.startswith((bench.url, "data:")) for url in page.requests), page.requests)

        page.value("scrollTo(0, 0)")
        other = Page(browser)
        page.pump(1)
        if page.value("document.hidden"):
            page.requests.clear()
            page.pump(5)
            check("a hidden page asks nothing", not page.requests, page.requests)
            check("and loads no picture", page.value("!document.querySelector('#frame img')"))
        else:
            check("the other tab hides the page", False)
        other.close()
        browser.call("Target.activateTarget", targetId=page.target)
        check("seen again, it asks again", page.until(f"!document.hidden && {PIXELS} !== 0", 10), page.requests)

        page.problems.clear()
        bench.printer.stop()
        check("a printer that is off turns it red", page.until(f"{STATE} === 'bad'", 30), page.value(WORD))
        print(f"with the printer off it says: {page.value(WORD)}", flush=True)
        check("and says why", page.value("document.getElementById('reasons').textContent.length > 5"))
        check("and still knows which camera it has", page.value("document.querySelector('#others [data-for=rtsp]').hidden && !document.querySelector('#others [data-for=chamber]').hidden"))
        check("in its title as well", page.value(f"document.title.startsWith({WORD})"), page.value("document.title"))
        looks(page, "p1s-off", shots)
        page.problems.clear()
        bench.proxy.stop()
        check("a proxy that is gone turns it red", page.until(f"{WORD} === 'PandaProxy does not answer'", 15), page.value(WORD))
        page.pump(1)
        page.shot(shots / "proxy-gone.png")
        thrown = [problem for problem in page.problems if "Failed to load" not in problem and "ERR_" not in problem]
        check("a failure throws nothing", not thrown, thrown)
        page.close()
    finally:
        bench.stop()


def before_an_x1c(browser, target, shots):
    """The video, a token instead of a password, a path prefix, and no JavaScript."""
    bench = Bench("x1c", target)
    try:
        page = Page(browser)
        page.size(1280, 900)
        page.open(f"{bench.url}?token={TOKEN}")
        check("x1c: the state is good", page.until(f"{STATE} === 'ok'", 20), page.value(WORD))
        moving(page, "x1c", shots)
        looks(page, "x1c", shots)
        check("elsewhere than on a memory card there is no link to its updates", page.value("document.getElementById('updates').hidden"))
        check("x1c: nothing on the console", not page.problems, page.problems)
        page.close()

        page = Page(browser)
        page.open(f"{bench.url}?token=wrong")
        check("a wrong token is said in words", page.until(f"{WORD} === 'Sign in to see the printer'", 10), page.value(WORD))
        check("and nothing is shown", page.value("!document.querySelector('.data').getClientRects().length"))
        page.close()

        Prefix.upstream = bench.url
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Prefix)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = Page(browser)
        page.size(1280, 900)
        page.open(f"http://127.0.0.1:{server.server_port}/printer/?token={TOKEN}")
        check("behind a path prefix it works", page.until(f"{STATE} === 'ok' && {PIXELS} !== 0", 20), page.value(WORD))
        check("and asks for nothing elsewhere", not Prefix.elsewhere, Prefix.elsewhere)
        page.close()
        server.shutdown()

        page = Page(browser)
        page.call("Emulation.setScriptExecutionDisabled", value=True)
        page.size(360, 740, True)
        page.call("Page.navigate", url=bench.url)
        page.pump(2)
        page.shot(shots / "no-javascript.png")
        links = page.value("Array.from(document.querySelectorAll('noscript a'), link => link.getAttribute('href')).join()")
        check("without JavaScript there are links", "status" in links and "snapshot.jpg" in links, links)
        page.close()
    finally:
        bench.stop()


def on_a_memory_card(browser, target, shots):
    """What the card's system has to say, and where it takes updates."""
    notice = "The card's data partition <b>cannot</b> be used."
    bench = Bench("x1c", target, "--machine-port=8081", "--notice", notice)
    try:
        page = Page(browser)
        page.size(1280, 900)
        page.open(f"{bench.url}?token={TOKEN}")
        reasons = "document.getElementById('reasons').textContent"
        check("card: what is wrong is said", page.until(f"{STATE} === 'wait' && {WORD} === 'Connected to the printer' && {reasons} === {notice!r}", 20),
              page.value(reasons))
        link = page.value("(link => link.getClientRects().length ? link.href : '')(document.getElementById('updates'))")
        check("card: there is a link to its updates", link == "http://127.0.0.1:8081/", link)
        check("card: every text has the contrast of WCAG AA", not page.value(CONTRAST), page.value(CONTRAST))
        check("card: nothing on the console", not page.problems, page.problems)
        page.shot(shots / "card.png")
        page.close()
    finally:
        bench.stop()


def updates_of_a_memory_card(browser, shots):
    """What a card says of an update is on its page, also what it says later."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Card)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    said, last = ("document.getElementById(%r).textContent" % name for name in ("said", "last"))
    try:
        page = Page(browser)
        page.size(1280, 900)
        page.open(f"http://127.0.0.1:{server.server_address[1]}/")
        check("card's updates: what became of the last one", page.until(f"{last} === {Card.last!r}", 10), page.value(last))
        page.value("(files => { files.items.add(new File(['an update'], 'x.update')); document.getElementById('file').files = files.files; })(new DataTransfer())")
        page.value("document.getElementById('send').click()")
        check("card's updates: a refusal", page.until(f"{said} === {Card.answer!r}", 10), page.value(said))
        page.value("document.getElementById('code').value = 'letmein-now'")
        Card.answer = "The update is being verified."
        page.value("document.getElementById('send').click()")
        check("card's updates: one that is taken", page.until(f"{said} === {Card.answer!r}", 10), page.value(said))
        Card.last = "refused: signature not made by an accepted key"
        check("card's updates: and what becomes of it", page.until(f"{last} === {Card.last!r}", 20), page.value(last))
        page.shot(shots / "card-update.png")
        Card.answer = ""
        page.value("document.getElementById('send').click()")
        check("card's updates: one without an answer", page.until(f"{said} === 'The connection ended before there was an answer.'", 10), page.value(said))
        page.close()
    finally:
        server.shutdown()


def in_another(browser, name, target, shots):
    """What another browser might do otherwise."""
    for model in ("p1s", "x1c"):
        bench = Bench(model, target)
        try:
            page = webdriver.Page(browser)
            page.size(1280, 900)
            page.open(bench.url + "?token=" + TOKEN)
            kind = f"{name}, {model}"
            check(f"{kind}: the state is good", page.until(f"{STATE} === 'ok'", 30), page.value(WORD))
            moving(page, model, shots)
            began = time.monotonic()
            bench.client("just-joined")
            check(f"{kind}: a client that joins appears", page.until("document.getElementById('services').textContent.includes('just-joined')", 10))
            print(f"{kind}: a client that joined was shown after {time.monotonic() - began:.1f} s", flush=True)
            own = page.value("document.getElementById('services').textContent")
            check(f"{kind}: the browser is shown by its name", re.search({"firefox": "Firefox/", "webkit": "Version/.* Safari/"}[name], own), own[-300:])
            check(f"{kind}: every text has the contrast of WCAG AA", not page.value(CONTRAST), page.value(CONTRAST))
            check(f"{kind}: nothing on the console", not page.problems, page.problems)
            page.shot(shots / f"{name}-{model}.png")
            bench.printer.stop()
            check(f"{kind}: a printer that is off turns it red", page.until(f"{STATE} === 'bad'", 40), page.value(WORD))
            page.shot(shots / f"{name}-{model}-off.png")
            page.size(500, 900)
            page.pump(1)
            wide = page.value("document.documentElement.scrollWidth - innerWidth")
            check(f"{kind}: nothing is wider than the window", wide <= 0, wide)
            page.shot(shots / f"{name}-{model}-narrow.png")
        finally:
            bench.stop()


def main():
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target/debug", help="folder of the build (default: target/debug)")
    parser.add_argument("--shots", type=pathlib.Path, default=ROOT / "target/browser", help="folder for the screenshots (default: target/browser)")
    parser.add_argument("--browser", choices=("chromium", "firefox", "webkit"), default="chromium", help="which one (default: chromium)")
    arguments = parser.parse_args()
    arguments.shots.mkdir(parents=True, exist_ok=True)
    browser = {"chromium": Browser, "firefox": webdriver.Firefox, "webkit": webdriver.WebKit}[arguments.browser]()
    try:
        if arguments.browser == "chromium":
            before_a_p1s(browser, arguments.target, arguments.shots)
            before_an_x1c(browser, arguments.target, arguments.shots)
            on_a_memory_card(browser, arguments.target, arguments.shots)
            updates_of_a_memory_card(browser, arguments.shots)
        else:
            in_another(browser, arguments.browser, arguments.target, arguments.shots)
    finally:
        browser.close()
    print(f"{passed} passed, {failed} failed; screenshots are in {arguments.shots}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
