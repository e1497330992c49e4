"""The web page in a browser: upload, divider, strength, download; and what it must not give away."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib import util

import numpy as np
import pytest
from PIL import Image

from common.paths import REPO_ROOT
from inference import main

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(util.find_spec("gradio") is None, reason="Gradio is not installed (requirements-app.txt)"),
]
browser_needed = pytest.mark.skipif(
    util.find_spec("playwright") is None or CHROMIUM is None,
    reason="needs requirements-app-test.txt and Debian's chromium",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    temporary = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "serving.app", "--port", str(port)],
        cwd=REPO_ROOT,
        env=os.environ | {"TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            urllib.request.urlopen(address).close()
            break
        except OSError:
            assert server.poll() is None, server.stderr.read()
            time.sleep(0.5)
    yield address
    server.terminate()
    server.wait(30)
    assert not list(temporary.glob("backlit-app-*")), "the users' photos stay"


@pytest.fixture
def photo(tmp_path):
    ramp = np.linspace(10, 120, 480).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (320, 1))] * 3, axis=-1)).save(tmp_path / "ramp.jpg", quality=92)
    return tmp_path / "ramp.jpg"


@pytest.fixture
def page(address):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("#photos input[type=file]", state="attached")
        yield page
        assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
        browser.close()


def shown(page) -> list[str]:
    return page.eval_on_selector_all("#comparison img", "images => images.map(image => image.src)")


@browser_needed
def test_upload_compare_change_the_strength_and_download(page, photo, tmp_path):
    page.locator("#photos input[type=file]").set_input_files(str(photo))
    page.wait_for_selector("#comparison img", timeout=120_000)
    before = shown(page)

    handle = page.locator("#comparison [data-testid=slider] .icon-wrap")
    box, frame = handle.bounding_box(), page.locator("#comparison").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * 0.25, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert handle.bounding_box()["x"] < box["x"] - 50

    page.locator("#strength input[type=number]").fill("0.4")
    page.keyboard.press("Tab")
    page.wait_for_function(
        "old => { const now = [...document.querySelectorAll('#comparison img')].map(image => image.src);"
        " return now.length == old.length && now.join() != old.join(); }",
        arg=before,
        timeout=20_000,
    )
    page.locator("#save").click()
    link = page.wait_for_selector("#results a", timeout=60_000)
    with page.expect_download() as download:
        link.click()
    assert main([str(photo), "--output", str(tmp_path / "out"), "--strength", "0.4"]) == 0
    download.value.save_as(tmp_path / "downloaded.jpg")
    assert (tmp_path / "downloaded.jpg").read_bytes() == (tmp_path / "out" / "ramp.jpg").read_bytes()


@browser_needed
def test_a_bad_file_is_told_in_one_line(page, tmp_path):
    (tmp_path / "notes.jpg").write_text("no photo")
    page.locator("#photos input[type=file]").set_input_files(str(tmp_path / "notes.jpg"))
    page.wait_for_function("document.querySelector('#message').innerText.includes('expected an image')", timeout=60_000)
    assert "notes.jpg: expected an image" in page.locator("#message").inner_text()
    assert "/tmp" not in page.locator("#message").inner_text()


@browser_needed
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def status(url: str, content: dict | None = None) -> tuple[int, str]:
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read(2000).decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read(2000).decode(errors="replace")


def test_no_other_file_is_given_away(address, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    for path in ("/etc/passwd", str(REPO_ROOT / "README.md"), str(tmp_path / "secret.png")):
        assert status(f"{address}/gradio_api/file={path}")[0] in (403, 404), path
        assert status(f"{address}/gradio_api/file=..%2f..{path}")[0] in (403, 404), path


def test_a_photo_is_one_that_was_uploaded(address, photo):
    """A call by hand, which names a file of the server as the uploaded one."""
    uploaded = [{"path": str(photo), "meta": {"_type": "gradio.FileData"}}]
    code, answer = status(
        f"{address}/gradio_api/call/save", {"data": [uploaded, "rave.safetensors", False, 1.0, "clip", False, False]}
    )
    if code == 200:
        event = json.loads(answer)["event_id"]
        answer = status(f"{address}/gradio_api/call/save/{event}")[1]
    assert "ramp.jpg" not in answer.replace(str(photo), "") and ("error" in answer or code >= 400)


def test_slips_are_told_without_a_traceback_and_what_was_saved_is_counted(photo, tmp_path):
    import gradio as gr

    from serving.page import Handlers
    from serving.studio import Studio

    handlers, settings = Handlers(Studio(tmp_path / "work")), ("backlit.safetensors", False, 1.0, "clip", False, False)
    for slip in (
        lambda: handlers.opened(["a.jpg"] * 51),
        lambda: handlers.save([], *settings),
        lambda: handlers.measure(None, None),
        lambda: handlers.read(None, "", "", "", "", None),
    ):
        with pytest.raises(gr.Error) as error:
            slip()
        assert not error.value.print_exception
    (tmp_path / "notes.jpg").write_text("no photo")
    message = handlers.save([str(photo), str(tmp_path / "notes.jpg")], *settings, progress=lambda *_, **__: None)[1]
    assert message.startswith("⚠️ notes.jpg: expected an image") and message.endswith("1 of 2 photos saved.")
    encoder, saved = "mini-clip (shipped, reads texts)", str(tmp_path / "notes.jpg")
    message = handlers.read(str(photo), settings[0], encoder, "dark", "bright", saved)[2]
    assert message.startswith("⚠️ notes.jpg: not a readable weight file")


def test_nobody_else_is_asked_by_the_page(address):
    with urllib.request.urlopen(address) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
