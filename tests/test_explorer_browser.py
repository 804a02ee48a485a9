"""The explorer as its user meets it: Voilà serves the page, a headless Chromium shows it, sliders are moved."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import psutil
import pytest

from labels import label

websocket = pytest.importorskip(
    "websocket", reason="websocket-client, which comes with jupyter, is not installed"
)

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--remote-debugging-port=0", "--remote-allow-origins=*",
    "--window-size=1400,1100",
)  # fmt: skip
#: Seconds after which something that should happen is taken not to; for a busy machine.
PATIENCE = 240

pytestmark = pytest.mark.full


def wait_for(what, ask, seconds=PATIENCE):
    """Ask until the answer is true; returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.2)
    raise AssertionError(f"within {seconds} s not seen: {what}")


class Page:
    """One tab of a Chromium, driven over its debugging protocol (chromedevtools.github.io/devtools-protocol)."""

    def __init__(self, address):
        self._socket = websocket.create_connection(address, timeout=PATIENCE, suppress_origin=True)
        self._number = 0
        self.errors = []
        self.requested = []  # addresses of other files and servers
        for part in ("Runtime", "Page", "Network"):
            self.call(f"{part}.enable")

    def call(self, method, **parameters):
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(message["params"]["exceptionDetails"])
            if message.get("method") == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
            if message.get("method") == "Network.webSocketCreated":
                self.requested.append(message["params"]["url"])
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def tell(self, expression):
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def text(self, selector):
        return self.tell(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def click(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def choose(self, selector, value):
        """Choose an entry of a menu by what the panel calls it."""
        menu = f"document.querySelector({json.dumps(selector)})"
        texts = self.tell(f"[...{menu}.options].map(option => option.text)")
        place = [text.replace("\N{NO-BREAK SPACE}", " ") for text in texts].index(value)
        self.tell(
            f"{menu}.selectedIndex = {place}; {menu}.dispatchEvent(new Event('change', {{bubbles: true}}))"
        )

    def others(self):
        """The hosts asked by the page, other than this machine."""
        hosts = {urllib.parse.urlsplit(url).hostname for url in self.requested}
        return hosts - {"127.0.0.1", "localhost", None}  # None: data in the page itself


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    program = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if program is None:
        pytest.skip("no Chromium or Chrome is installed (on Debian and Ubuntu: apt-get install chromium)")
    profile = tmp_path_factory.mktemp("chromium")
    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    place = profile / "DevToolsActivePort"
    try:
        wait_for("the browser's port", lambda: place.is_file() and place.read_text().count("\n") >= 1)
        port = place.read_text().split("\n")[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            tabs = json.load(answer)
        yield next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def serving(*options, **environment):
    """Serve the page as `make app` does; gives the process, with the page's ``address``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "explorer", "orl", f"--port={port}", *options],
        cwd=ROOT,
        env={**os.environ, "ANONFACES_QUIET": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def answers():
        assert process.poll() is None, "the server ended by itself"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True

    try:
        wait_for("the server", answers)
        process.address = f"http://127.0.0.1:{port}/"
        yield process
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def served():
    """The page's server."""
    with serving("--no-browser") as server:
        yield server


@pytest.fixture(scope="module")
def page(chromium, served):
    page = Page(chromium)
    page.call("Page.navigate", url=served.address)
    wait_for("the panel", lambda: page.text(SIMULATED))
    return page


SIMULATED = '[data-measure="information_loss"][data-state="simulated"]'
CONFIRMED = '[data-measure="information_loss"][data-state="confirmed"]'
SURROGATE = "document.querySelector('figure.surrogate img').src"
CLUSTERS = "document.querySelectorAll('.anonfaces-cluster select option').length"
CHOSEN = "document.querySelector('.anonfaces-cluster select').selectedIndex"


def confirmed(page):
    assert page.text("[role=alert]") == ""
    text = page.text(CONFIRMED)
    return text not in ("", "…") and text


def test_numbers_are_confirmed_once_the_images_are_drawn(page):
    assert page.tell(CLUSTERS) == 8
    drawn = float(wait_for("confirmed numbers", lambda: confirmed(page)))
    assert drawn > float(page.text(SIMULATED))
    assert page.tell(SURROGATE).startswith("data:image/png")
    assert page.text("[data-cluster-state]") == "confirmed"
    assert "Confirmed: 8 surrogates" in page.text("[role=status]")


def test_moving_the_slider_changes_picture_and_numbers(page):
    wait_for("confirmed numbers", lambda: confirmed(page))
    before = (
        page.text(SIMULATED),
        page.tell(SURROGATE),
        page.tell("document.querySelector('svg[role=img]').outerHTML"),
    )
    page.tell("document.querySelector('.anonfaces-k .noUi-handle').focus()")
    page.press("ArrowRight")
    page.press("ArrowRight")
    page.press("ArrowRight")
    wait_for("other numbers, which come last", lambda: page.text(SIMULATED) != before[0])
    assert page.tell(CLUSTERS) == 5
    assert page.text(".anonfaces-k .widget-readout") == "8"
    after = (
        page.text(SIMULATED),
        page.tell(SURROGATE),
        page.tell("document.querySelector('svg[role=img]').outerHTML"),
    )
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert page.text(CONFIRMED) == "…"
    assert page.tell(SURROGATE).startswith("data:image/jpeg")  # a preview, said to be one
    assert page.text("figure.surrogate").startswith("Preview")
    wait_for("confirmed numbers", lambda: confirmed(page))
    assert page.tell(SURROGATE).startswith("data:image/png")


def test_a_click_on_the_map_chooses_a_cluster(page):
    other = (page.tell(CHOSEN) + 1) % page.tell(CLUSTERS)
    x, y = page.tell(
        f"""(() => {{
            const path = [...document.querySelectorAll('svg [data-cluster="{other}"] path')].at(-1);
            const start = path.getPointAtLength(0), matrix = path.getScreenCTM();
            return [matrix.a * start.x + matrix.e, matrix.d * start.y + matrix.f]; }})()"""
    )
    members = page.tell("document.querySelector('figure.surrogate').parentElement.innerText")
    page.click(x, y)
    wait_for("the other cluster", lambda: page.tell(CHOSEN) == other)
    wait_for(
        "its members",
        lambda: page.tell("document.querySelector('figure.surrogate').parentElement.innerText") != members,
    )
    assert f"Cluster {other + 1} of" in page.tell(
        "document.querySelector('figure.surrogate').parentElement.innerText"
    )


def test_menus_change_map_and_anonymizer(page):
    picture = "document.querySelector('svg[role=img]').outerHTML"
    before = page.tell(picture)
    page.choose(".anonfaces-partitioner select", label("mdav"))
    wait_for("another map", lambda: page.tell(picture) != before)
    page.choose(".anonfaces-anonymizer select", label("pixel"))
    wait_for(
        "a surrogate by it",
        lambda: f"drawn by {label('pixel')}" in page.text("figure.surrogate"),
    )
    wait_for("confirmed numbers", lambda: confirmed(page))


def test_a_reload_keeps_the_settings_and_one_kernel(page, served):
    def kernels():
        children = psutil.Process(served.pid).children()
        return {child for child in children if child.status() != psutil.STATUS_ZOMBIE}

    page.choose(".anonfaces-partitioner select", label("ward"))
    page.tell("document.querySelector('.anonfaces-shrinkage .noUi-handle').focus()")
    page.press("ArrowRight")
    wait_for("settings in the address", lambda: "partitioner=ward" in page.tell("location.search"))
    wait_for("shrinkage in the address", lambda: "shrinkage=0.05" in page.tell("location.search"))
    settings, numbers = page.tell("location.search"), page.text(SIMULATED)
    assert "k=8" in settings and "anonymizer=pixel" in settings
    before = kernels()
    page.call("Page.reload")
    wait_for("an empty page", lambda: not page.text(SIMULATED))
    wait_for("the panel", lambda: page.text(SIMULATED))
    wait_for("the end of the first kernel", lambda: not before & kernels())
    assert len(kernels()) == 1
    assert page.tell("location.search") == settings
    assert page.text(SIMULATED) == numbers
    assert page.text(".anonfaces-k .widget-readout") == "8"


def test_the_button_copies_the_code(page):
    page.tell("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.tell("document.querySelector('.anonfaces-explorer button').click()")
    lines = wait_for("copied text", lambda: page.tell("window.copied")).splitlines()
    assert len(lines) == 6
    assert "datasets.load_faces('orl', per_identity=1" in lines[1]
    assert "partitioner='ward', anonymizer='pixel', shrinkage=0.05" in lines[3]
    compile("\n".join(lines), "copied", "exec")


def test_screen_readers_are_told_what_everything_is(page):
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    named = {"slider", "combobox", "checkbox", "button", "image", "heading"}
    names = [
        (node["role"]["value"], node["name"]["value"]) for node in nodes if node["role"]["value"] in named
    ]
    assert all(name for _, name in names), names
    assert ("slider", "k (people)") in names and ("slider", "Shrinkage") in names
    assert {role for role, _ in names} == named
    assert {"main", "status", "table"} <= {node["role"]["value"] for node in nodes}


@pytest.mark.parametrize("width", [400, 800, 1400])
def test_nothing_sticks_out_of_a_narrow_window(page, width):
    page.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
    )
    parts = "document.querySelectorAll('.anonfaces-explorer :is(svg, img, table, pre, p, h2, select, .noUi-target)')"
    furthest = f"Math.max(...[...{parts}].map(part => part.getBoundingClientRect().right))"
    assert (
        0
        < page.tell(furthest)
        <= page.tell("document.querySelector('.anonfaces-explorer').getBoundingClientRect().right")
    )
    assert page.tell("document.documentElement.scrollWidth") <= width


def test_no_other_server_is_asked(page):
    assert len(page.requested) > 10
    assert page.others() == set()


def test_the_browser_refuses_other_servers(page):
    page.tell(
        "document.addEventListener('securitypolicyviolation', (event) => { window.refused = event.blockedURI; });"
        "fetch('https://example.org/').catch(() => {})"
    )
    assert wait_for("a refusal", lambda: page.tell("window.refused")).startswith("https://example.org")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_with_its_kernels(number, tmp_path):
    opener = tmp_path / "browser"
    opener.write_text(f'#!/bin/sh\ncp "${{1#file://}}" {tmp_path}/opened.html\n')
    opener.chmod(0o700)
    with serving(BROWSER=f"{opener} %s") as process:
        with urllib.request.urlopen(process.address, timeout=PATIENCE) as answer:
            assert b"anonfaces" in answer.read()
        opened = tmp_path / "opened.html"
        wait_for("a browser", opened.is_file)
        assert set(re.findall("//([^/:]+)", opened.read_text())) <= {"127.0.0.1", "localhost"}
        started = psutil.Process(process.pid).children(recursive=True)
        assert any(child.status() != psutil.STATUS_ZOMBIE for child in started)
        process.send_signal(number)
        assert process.wait(60) == 0
        _, left = psutil.wait_procs(started, timeout=20)
        assert len(left) == 0


def test_nothing_went_wrong_in_the_page(page):
    assert page.errors == []
    assert page.tell("document.querySelectorAll('[role=alert]').length") == 0
    missing = "[...document.querySelectorAll('.anonfaces-explorer img')].filter(i => !i.alt || !i.naturalWidth).length"
    assert page.tell(missing) == 0
