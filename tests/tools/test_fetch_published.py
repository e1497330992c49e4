"""tools/fetch_published.py: against a folder and a local web server that can stop half way."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from common.cli import EXIT_SOME_FAILED
from tools import fetch_published

NAMES = ("clip_lit/a.pth", "rave/b.pth")
CONTENT = {name: name.encode() * 5000 for name in NAMES}


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    monkeypatch.setattr(
        fetch_published, "SHA256", {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    )


@pytest.fixture
def source(tmp_path):
    for name, data in CONTENT.items():
        file = tmp_path / "source" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
    return tmp_path / "source"


@pytest.fixture
def server(source):
    """Answers ranges, as file servers do; `ranges` keeps what was asked for."""

    class Handler(BaseHTTPRequestHandler):
        ranges: list = []

        def do_GET(self):
            file = source / self.path.lstrip("/")
            asked = self.headers.get("Range")
            self.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if not file.is_file():
                self.send_error(404)
                return
            data = file.read_bytes()[start:]
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", Handler
        httpd.shutdown()


def run(tmp_path, *more):
    return fetch_published.main(["--out", str(tmp_path / "out"), *map(str, more)])


def fetched(tmp_path):
    return {name: (tmp_path / "out" / name).read_bytes() for name in NAMES if (tmp_path / "out" / name).is_file()}


def test_from_a_folder_and_again(tmp_path, source, capsys):
    assert run(tmp_path, "--source", source) == 0
    assert fetched(tmp_path) == CONTENT
    capsys.readouterr()
    assert run(tmp_path, "--source", source) == 0
    assert capsys.readouterr().out.count("there") == 2


def test_a_stopped_download_goes_on(tmp_path, server):
    url, handler = server
    partial = tmp_path / "out" / "rave" / "b.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT["rave/b.pth"][:7000])
    assert run(tmp_path, "--source", url) == 0
    assert fetched(tmp_path) == CONTENT
    assert handler.ranges == [None, "bytes=7000-"]
    assert not partial.exists()


def test_other_content_is_not_kept(tmp_path, source, capsys):
    (source / "rave" / "b.pth").write_bytes(b"other")
    assert run(tmp_path, "--source", source) == EXIT_SOME_FAILED
    assert list(fetched(tmp_path)) == ["clip_lit/a.pth"]
    assert "rave/b.pth: expected SHA-256" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_missing_file_and_a_dead_address_are_told_in_a_line(tmp_path, server, source, capsys):
    url, _ = server
    (source / "rave" / "b.pth").unlink()
    assert run(tmp_path, "--source", url) == EXIT_SOME_FAILED
    assert "404" in capsys.readouterr().err
    assert run(tmp_path, "--source", "http://127.0.0.1:9", "--only", "rave") == EXIT_SOME_FAILED
    assert "refused" in capsys.readouterr().err


def test_a_wrong_file_in_place_is_never_overwritten(tmp_path, source, capsys):
    (tmp_path / "out" / "rave").mkdir(parents=True)
    (tmp_path / "out" / "rave" / "b.pth").write_bytes(b"mine")
    assert run(tmp_path, "--source", source) == EXIT_SOME_FAILED
    assert (tmp_path / "out" / "rave" / "b.pth").read_bytes() == b"mine"
    assert "found another file" in capsys.readouterr().err
