"""What the browser tests share: a headless Chromium, and a JupyterLab to point it at."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

REPOSITORY = Path(__file__).parents[1]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,1000",
]
# No question about news, and every cell in the page even when it is out of sight.
LAB_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def needs_browser(test):
    """Mark a test (or a module's ``pytestmark``) that opens a page."""
    missing = [
        name for name, path in (("chromium", CHROMIUM), ("chromedriver", CHROMEDRIVER)) if not path
    ]
    reason = f"no {' and no '.join(missing)} on the PATH"
    return pytest.mark.browser(pytest.mark.skipif(bool(missing), reason=reason)(test))


@contextmanager
def chromium(width=None, height=844):
    """A WebDriver with an empty profile; ``width`` (CSS pixels) makes it a phone."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = Options()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
        try:
            if width:
                size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            yield driver
        finally:
            driver.quit()


def console_errors(driver):
    """What the page complained about on its console, as text."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def requested(driver):
    """Every address the page asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
    return [event["params"]["request"]["url"] for event in sent]


def broken_images(driver):
    """The sources of images that did not load."""
    return driver.execute_script(
        "return [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
    )


@contextmanager
def lab(folder, home):
    """JupyterLab serving ``folder``; yields its address with a token. ``home`` is scratch."""
    port, token = _free_port(), secrets.token_hex(16)
    settings = home / "settings"
    for name, values in LAB_SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser"]
    command += [
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--ServerApp.ip=127.0.0.1",
    ]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with open(home / "lab.log", "w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=_lab_environment(home, settings), stdout=log, stderr=log
        )
    try:
        _wait_for_server(server, f"http://127.0.0.1:{port}/api?token={token}", home / "lab.log")
        yield f"http://127.0.0.1:{port}", token
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def run_in_lab(notebook, folder, home, seconds=600):
    """Open a notebook (path from ``folder``) in JupyterLab and run all its cells.

    Returns the outputs of every code cell, in the order of the cells, as nbformat has them.
    Fails where no picture can be seen in the page afterwards.
    """
    with lab(folder, home) as (address, token), chromium() as driver:
        driver.set_script_timeout(seconds)
        driver.get(f"{address}/lab/tree/{notebook}?reset&token={token}")
        WebDriverWait(driver, 600).until(lambda driver: driver.execute_script(NOTEBOOK_READY))
        error = driver.execute_async_script(RUN_ALL_CELLS)
        assert error is None, f"JupyterLab could not run {notebook}: {error}"
        cells = [json.loads(cell) for cell in driver.execute_script(CODE_CELLS)]
        assert all(cell["execution_count"] for cell in cells if "".join(cell["source"]).strip()), (
            f"not every cell ran: {[cell['outputs'] for cell in cells]}"
        )
        WebDriverWait(driver, 600).until(lambda driver: driver.execute_script(PICTURE_SEEN))
        return [cell["outputs"] for cell in cells]


NOTEBOOK_READY = """
const app = window.jupyterapp;
const panel = app && app.shell.currentWidget;
const session = panel && panel.sessionContext;
return Boolean(session && session.isReady && session.session && session.session.kernel
  && session.session.kernel.status === 'idle' && panel.content.widgets.length);
"""
RUN_ALL_CELLS = """
const done = arguments[arguments.length - 1];
window.jupyterapp.commands.execute('notebook:run-all-cells')
  .then(() => done(null), error => done(String(error)));
"""
CODE_CELLS = """
return window.jupyterapp.shell.currentWidget.content.widgets
  .filter(cell => cell.model.type === 'code').map(cell => JSON.stringify(cell.model.toJSON()));
"""
PICTURE_SEEN = """
const output = '.jp-OutputArea-output';
const pictures = document.querySelectorAll(`${output} img, ${output} canvas, ${output} svg`);
return [...pictures].some(picture => (picture.naturalWidth || picture.clientWidth) > 0);
"""


def project_copy(folder, notebook):
    """The project's data and one notebook in ``folder``: what runs there changes nothing here."""
    skipped = shutil.ignore_patterns("executed", "report", "scratch")
    shutil.copytree(REPOSITORY / "results", folder / "results", ignore=skipped)
    shutil.copytree(REPOSITORY / "papers", folder / "papers")
    (folder / "notebooks").mkdir()
    shutil.copy(REPOSITORY / "notebooks" / notebook, folder / "notebooks")


def see(driver, css):
    """The elements a CSS selector finds."""
    return driver.find_elements(By.CSS_SELECTOR, css)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _lab_environment(home, settings):
    """No setting of the user's is read, and nothing is left in the user's folders."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("SSJF_ROOT", "SSJF_RESULTS")
    }
    return {
        **kept,
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
    }


def _wait_for_server(server, address, log, seconds=600):
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
