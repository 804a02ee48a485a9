"""The explorer as its user meets it: Voilà serves the page, a headless Chromium shows it, sliders are moved."""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

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
        self.call("Runtime.enable")
        self.call("Page.enable")

    def call(self, method, **parameters):
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(message["params"]["exceptionDetails"])
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

    def picture(self, path):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        Path(path).write_bytes(base64.b64decode(data))


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


@pytest.fixture(scope="module")
def served():
    """The address at which `make app` serves the page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "explorer", "orl", "--no-browser", f"--port={port}"],
        cwd=ROOT,
        env={**os.environ, "ANONFACES_QUIET": "1"},
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
        yield f"http://127.0.0.1:{port}/"
    finally:
        os.killpg(process.pid, 15)  # its own group, which holds server and kernels
        process.wait(30)


@pytest.fixture(scope="module")
def page(chromium, served):
    page = Page(chromium)
    page.call("Page.navigate", url=served)
    wait_for("the panel", lambda: page.text(SIMULATED))
    return page


SIMULATED = '[data-measure="information_loss"][data-state="simulated"]'
CONFIRMED = '[data-measure="information_loss"][data-state="confirmed"]'
SURROGATE = "document.querySelector('figure.surrogate img').src"
CLUSTERS = "document.querySelectorAll('.anonfaces-cluster select option').length"
CHOSEN = "document.querySelector('.anonfaces-cluster select').selectedIndex"


def confirmed(page):
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
    wait_for("five clusters of eight", lambda: page.tell(CLUSTERS) == 5)
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


def test_nothing_went_wrong_in_the_page(page):
    assert page.errors == []
    assert page.tell("document.querySelectorAll('[role=alert]').length") == 0
    missing = "[...document.querySelectorAll('.anonfaces-explorer img')].filter(i => !i.alt || !i.naturalWidth).length"
    assert page.tell(missing) == 0
