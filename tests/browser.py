#!/usr/bin/env python3
"""The page of a node, in a real headless Chromium: driven over WebDriver, with Python's library alone.

usage: browser.py NODE_PROGRAM [SCREENSHOT_FOLDER]

Needs Debian's chromium and chromium-driver. Loads only addresses of this machine.
"""

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

TOKEN = "a-token-for-the-browser"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1100,1500",
]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ask(url, method="GET", body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.read().decode()}") from error


def eventually(what, is_so, seconds=30):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = is_so()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"in {seconds} s it was not so that {what}")


class Browser:
    def __init__(self, scheme):
        self.profile = tempfile.TemporaryDirectory()
        port = free_port()
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{port}"
        eventually("chromedriver is up", self.is_up)
        options = {"args": [*FLAGS, f"--user-data-dir={self.profile.name}"]}
        if scheme == "dark":
            options["args"].append("--force-dark-mode")
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        body = {"capabilities": {"alwaysMatch": capabilities}}
        self.url += "/session/" + ask(self.url + "/session", "POST", body)["value"]["sessionId"]

    def is_up(self):
        try:
            return ask(self.url + "/status")["value"]["ready"]
        except OSError:
            return False

    def go(self, url):
        ask(self.url + "/url", "POST", {"url": url})

    def script(self, script, *args):
        body = {"script": script, "args": list(args)}
        return ask(self.url + "/execute/sync", "POST", body)["value"]

    def text(self, selector):
        return self.script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def element(self, selector):
        body = {"using": "css selector", "value": selector}
        return next(iter(ask(self.url + "/element", "POST", body)["value"].values()))

    def click(self, selector):
        ask(f"{self.url}/element/{self.element(selector)}/click", "POST", {})

    def type(self, selector, text):
        element = self.element(selector)
        ask(f"{self.url}/element/{element}/clear", "POST", {})
        ask(f"{self.url}/element/{element}/value", "POST", {"text": text})

    def complaints(self):
        log = ask(self.url + "/se/log", "POST", {"type": "browser"})["value"]
        return [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]

    def screenshot(self, folder, name):
        if folder:
            picture = base64.b64decode(ask(self.url + "/screenshot")["value"])
            with open(os.path.join(folder, name), "wb") as file:
                file.write(picture)

    def close(self):
        try:
            ask(self.url, "DELETE")
        finally:
            self.driver.terminate()
            self.driver.wait()
            self.profile.cleanup()


class Node:
    def __init__(self, program, token=None):
        self.port = free_port()
        environment = dict(os.environ)
        environment.pop("BALTER_TOKEN", None)
        if token:
            environment["BALTER_TOKEN"] = token
        arguments = ["--port", str(self.port), "--allow-closed-loops"]
        self.process = subprocess.Popen([program, *arguments], env=environment)
        self.url = f"http://127.0.0.1:{self.port}"
        eventually("the node is up", self.is_up)

    def is_up(self):
        try:
            return ask(self.url + "/health")["status"] == "ok"
        except OSError:
            return False

    def close(self):
        self.process.terminate()
        assert self.process.wait(30) == 0, "the node did not end in good order"


def figure(browser, name):
    text = browser.text(f'.run [data-figure="{name}"] dd').replace(",", "")
    return float(text or 0)


def uses_the_page(browser, node, folder, name):
    """Starts a run by the form, sees its rate, stops it, and sees that it is over."""
    eventually("the scenario is listed", lambda: "idle" in browser.text("#start select"))
    eventually("the node is listed", lambda: "alive" in browser.text("#nodes"))
    browser.script("document.forms.start.elements.name.value = 'idle'")
    browser.type("#start [name=max_tps]", "500")
    browser.type("#start [name=duration]", "60")
    browser.click("#start button")
    eventually("the run is shown", lambda: browser.text(".run h3").startswith("idle "))
    eventually("it runs", lambda: browser.text(".run .state") == "running")
    eventually("it is at its rate", lambda: 400 < figure(browser, "transactions/s") < 600)
    eventually("its node is shown", lambda: "working" in browser.text(".run tbody"))
    points = "return document.querySelector('.run .tps polyline.a').getAttribute('points')"
    eventually("its rate is drawn", lambda: len(browser.script(points).split()) > 3)
    browser.screenshot(folder, f"{name}.png")
    browser.click(".run .stop")
    eventually("it is over", lambda: browser.text(".run .state") == "finished")
    eventually("what bounded it is said", lambda: "of 500" in browser.text(".run .notes"))
    run = ask(f"{node.url}/runs")[0] if name != "token" else None
    if run:
        assert run["state"] == "finished", run
        assert figure(browser, "succeeded") == run["counts"]["succeeded"], run["counts"]


def closes_the_loop(browser, node):
    """Asks for a closed loop by the form: the fields of the rate are gone, and not sent."""
    browser.script(
        "const load = document.forms.start.elements.load; load.value = 'concurrency';"
        "load.dispatchEvent(new Event('change'));"
    )
    shown = "return document.forms.start.elements[arguments[0]].checkVisibility()"
    assert not browser.script(shown, "max_tps") and browser.script(shown, "concurrency")
    browser.type("#start [name=concurrency]", "3")
    browser.click("#start button")
    asked = lambda: browser.text(".run .asked").startswith("3 instances, closed loop")
    eventually("the run is shown", asked)
    eventually("its instances are there", lambda: figure(browser, "instances") == 3)
    eventually("its response times are shown", lambda: "ms" in browser.text('.run [data-figure="99 %"]'))
    browser.click(".run .stop")
    eventually("it is over", lambda: browser.text(".run .state") == "finished")
    run = max(ask(f"{node.url}/runs"), key=lambda run: run["started_at"])
    assert (run["request"].get("concurrency"), run["goal_tps"]) == (3, 0), run
    assert run["counts"]["planned"] == run["counts"]["started"] > 0, run


def refuses_nonsense(browser):
    browser.type("#start [name=args]", "[1, 2]")
    browser.click("#start button")
    eventually("it says why", lambda: "takes none" in browser.text("#problem"))
    browser.type("#start [name=args]", "{")
    browser.click("#start button")
    eventually("it says why", lambda: "JSON" in browser.text("#problem"))


def main():
    program, folder = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    passed = 0
    for scheme in ("light", "dark"):
        node, browser = Node(program), None
        try:
            browser = Browser(scheme)
            browser.go(node.url)
            uses_the_page(browser, node, folder, scheme)
            complaints = browser.complaints()
            assert not complaints, complaints
            closes_the_loop(browser, node)
            refuses_nonsense(browser)
            passed += 1
        finally:
            if browser:
                browser.close()
            node.close()
    node, browser = Node(program, TOKEN), None
    try:
        browser = Browser("light")
        browser.go(node.url)
        hidden = "return document.getElementById('locked').hidden"
        eventually("it asks for the token", lambda: browser.script(hidden) is False)
        browser.screenshot(folder, "locked.png")
        browser.type("#token", TOKEN)
        browser.click("#unlock button")
        eventually("it goes on", lambda: browser.script(hidden) is True)
        uses_the_page(browser, node, folder, "token")
        passed += 1
    finally:
        if browser:
            browser.close()
        node.close()
    print(f"browser: {passed} passed, 0 failed")


main()
