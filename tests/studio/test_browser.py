"""The page itself: a headless Chromium that clicks, and nothing but 127.0.0.1 that it may reach."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("nicegui", reason="the studio's extra is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("there is no chromium", allow_module_level=True)

SECOND = 1000  # ms, of playwright
PATIENCE = 60 * SECOND
LIMIT = 100  # MB, the default
HIDDEN = "Resize must be passed a displayed plot"  # NiceGUI asks a figure to resize as it goes: nothing comes of it


@dataclass
class Server:
    url: str
    process: subprocess.Popen
    folder: Path  # its temporary files

    @property
    def memory(self) -> float:
        """MB that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    @property
    def disk(self) -> float:
        """MB of its temporary files."""
        return sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file()) / 1e6

    def ask(self, method="GET", path="/", body=None, **headers):
        """Status of a request that is made as written."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            chunked = body is not None and not isinstance(body, bytes)
            connection.request(method, path, body, headers, encode_chunked=chunked)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it answered without waiting for the rest
        try:
            return connection.getresponse().status
        except (ConnectionResetError, http.client.RemoteDisconnected):
            return None
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    command = [sys.executable, "-m", "celltwin.cli", "studio", "demo", "--no-browser", "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(folder)}, cwd=folder
    )
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert found, "the studio did not start"
    address, patience = urlsplit(found[0]), time.monotonic() + 60.0
    while True:  # it says where before it listens there
        try:
            socket.create_connection((address.hostname, address.port), timeout=5.0).close()
            break
        except ConnectionRefusedError:
            assert time.monotonic() < patience, "the studio does not listen"
            time.sleep(0.1)
    yield Server(found[0], process, folder)
    process.stdout.close()
    process.terminate()
    assert process.wait(60) == 0
    assert list(folder.iterdir()) == [], "temporary files are left"


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tabs(chromium, server):
    """Opens browser tabs. Whatever they ask for from elsewhere, and every error of their program, fails the test."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    asked, faults = [], []

    def watch(page):
        page.on("websocket", lambda socket: asked.append(socket.url))
        page.on("pageerror", lambda error: faults.append(str(error)) if HIDDEN not in str(error) else None)

    context.on("request", lambda request: asked.append(request.url))
    context.on("page", watch)

    def opened():
        page = context.new_page()
        page.goto(server.url)
        page.get_by_text("Cell of these logs").wait_for()
        return page

    yield opened
    context.close()
    hosts = {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}, f"the page asked {hosts}"
    assert len(asked) > 5
    assert faults == []


@pytest.fixture(scope="module")
def logs(tmp_path_factory, drives):
    """A csv whose current is positive on discharge, and two logs of parquet."""
    folder = tmp_path_factory.mktemp("logs")
    tested = drives["25degC", "LA92"]
    rows = zip(tested.time, tested.voltage, -tested.current, tested.temperature, strict=True)
    text = "".join(f"{t:.1f},{v:.4f},{i:.4f},{c:.2f}\n" for t, v, i, c in rows)
    (folder / "LA92.csv").write_text(f"Time [s],Voltage [V],Current [A],Temperature [degC]\n{text}", encoding="utf-8")
    for name in ("Mixed1", "UDDS"):
        replace(drives["25degC", name], net_capacity=None).save(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    return tmp_path_factory.mktemp("screenshots")


def go(page, tab):
    page.bring_to_front()
    page.locator(".q-tab", has_text=tab).first.click()


def drop(page, *paths):
    page.locator("input[type=file]").first.set_input_files([str(path) for path in paths])


def choose(page, name, option):
    page.get_by_test_id(name).click()
    page.locator(".q-menu .q-item", has_text=option).first.click()


def choose_family(page, name):
    field = page.get_by_test_id("family")
    field.click()
    field.fill(name)
    page.locator(".q-menu .q-item", has_text=f"{name} (").first.click()


def error(page):
    return page.get_by_test_id("error").first


def test_from_a_log_to_c(tabs, logs, shots, tmp_path):
    page = tabs()
    drop(page, logs / "LA92.csv")
    error(page).get_by_text("positive current does not charge").wait_for()
    choose(page, "sign", "discharge")
    page.get_by_test_id("again").click()
    page.get_by_text("turned the sign of the current").wait_for()
    assert page.get_by_test_id("error").count() == 0
    page.get_by_text("Voltage [V]").wait_for()
    for name in ("Mixed1.parquet", "UDDS.parquet"):
        drop(page, logs / name)
        page.get_by_text(f"{name}: parquet").wait_for()
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    page.get_by_test_id("reference").fill("1.0")
    page.get_by_test_id("use-cell").click()
    page.get_by_text("noted").wait_for()
    for number, use in enumerate(("test", "train", "validate"), 1):
        choose(page, f"use-{number}", use)
    page.screenshot(path=shots / "log.png")

    go(page, "Twin")
    choose(page, "source", "the logs")
    choose_family(page, "narx")
    choose(page, "effort", "try-out")
    page.get_by_test_id("train").click()
    page.get_by_text("On the test records").wait_for()
    page.get_by_text("twin: narx").wait_for()
    page.screenshot(path=shots / "twin.png")

    go(page, "View")
    page.get_by_test_id("run").click()
    page.get_by_test_id("tile").filter(has_text="RMSE").wait_for()
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    page.screenshot(path=shots / "view.png")

    go(page, "What-if")
    page.get_by_test_id("protocol").fill("dance at 1C")
    page.get_by_test_id("simulate").click()
    error(page).wait_for()
    page.get_by_test_id("protocol").fill("discharge at 1C until 3.2 V\nrest for 10 min")
    page.get_by_test_id("capacity").fill("80")
    page.get_by_test_id("simulate").click()
    page.get_by_text("How it went").wait_for()
    assert page.get_by_test_id("error").count() == 0
    page.screenshot(path=shots / "what-if.png")

    go(page, "Export")
    with page.expect_download() as download:
        page.get_by_test_id("export-c").click()
    download.value.save_as(tmp_path / "c.zip")
    with zipfile.ZipFile(tmp_path / "c.zip") as archive:
        archive.extractall(tmp_path)
    page.screenshot(path=shots / "export.png")
    for picture in ("log", "twin", "view", "what-if", "export"):
        assert (shots / f"{picture}.png").stat().st_size > 10_000
    if shutil.which("cc"):
        for source in (tmp_path / "narx-c").glob("*.c"):
            subprocess.run(
                ["cc", "-std=c99", "-Wall", "-Werror", "-c", source, "-o", source.with_suffix(".o")], check=True
            )
        assert list((tmp_path / "narx-c").glob("*.o"))


def test_two_tabs_are_two_sessions_and_one_trains(tabs, logs, server):
    one, other = tabs(), tabs()
    drop(one, logs / "Mixed1.parquet")
    one.get_by_text("Mixed1.parquet: parquet").wait_for()
    assert other.get_by_text("Mixed1.parquet").count() == 0
    other.get_by_text("no logs yet").wait_for()
    one.reload()
    one.get_by_text("Mixed1.parquet").first.wait_for()  # a reload loses nothing
    for page in (one, other):
        go(page, "Twin")
        page.get_by_text("the dataset").wait_for()
        choose_family(page, "narx")
        page.get_by_test_id("train").click()
        page.get_by_test_id("stop" if page is one else "error").first.wait_for()
    error(other).get_by_text("another training runs").wait_for()
    one.bring_to_front()
    one.get_by_test_id("stop").click()
    one.get_by_text("the checkpoint is kept").wait_for()
    one.get_by_test_id("resume").wait_for()
    other.close()
    go(one, "Log")
    one.get_by_text("Mixed1.parquet").first.wait_for()


def test_bad_files_do_no_harm(tabs, server, tmp_path):
    page, uploaded = tabs(), []
    page.on("request", lambda request: uploaded.append(request.url) if "/upload/" in request.url else None)
    noise = tmp_path / "..noise.csv"
    noise.write_bytes(bytes(range(256)) * 100)
    drop(page, noise)
    error(page).get_by_text("noise.csv").wait_for()
    large = tmp_path / "large.csv"
    with large.open("wb") as file:
        file.truncate(200 << 20)
    before = len(uploaded)
    drop(page, large)
    page.get_by_text(f"at most {LIMIT} MB").wait_for()
    assert len(uploaded) == before, "the browser sent what it knew to be too large"

    path, held, stored = urlsplit(uploaded[0]).path, server.memory, server.disk
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../large.csv"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    size = {"Content-Length": str(200 << 20)}
    assert server.ask("POST", path, form, **kind, **size) == 413
    parts = (form if number == 0 else b"0" * (1 << 20) for number in range(200))
    assert server.ask("POST", path, parts, **kind, **{"Transfer-Encoding": "chunked"}) in (413, None)
    assert server.memory < held + 60
    assert server.disk <= stored + 1

    go(page, "Export")
    page.get_by_text("First choose or train a twin").first.wait_for()
    page.get_by_test_id("theme").click()
    page.locator("body.body--dark").wait_for()


def test_other_sites_are_refused(server):
    port = urlsplit(server.url).port
    websocket = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    websocket["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    assert server.ask() == 200
    assert server.ask(Host=f"localhost:{port}") == 200
    assert server.ask(Host=f"evil.example:{port}") == 400
    assert server.ask("POST", Origin="http://evil.example") == 403
    assert server.ask(path=path, **websocket) == 101
    assert server.ask(path=path, Origin="http://evil.example", **websocket) == 403
    assert server.ask(path=path, Host=f"evil.example:{port}", **websocket) == 403
    assert server.ask(path="/docs") == 404
