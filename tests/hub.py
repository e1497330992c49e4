"""A model hub on loopback, in the layout that huggingface_hub asks for, and the environment of a process that uses it.

As on the real hub, HEAD of `/REPOSITORY/resolve/REVISION/FILE` answers with a redirect to another host, the commit, and
the SHA-256 and size of the file; GET of the other host serves the bytes, in ranges where asked.
"""

import hashlib
import os
import re
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 1 << 20


class Hub:
    """Serves `files` ("owner/repository/file" -> local file) while it is open.

    Its root answers 404, as that of a mirror may which has files alone.
    breaks: for some of the files, how many transfers end in the middle, as where a connection is lost.
    claims: for some of the files, a size in bytes that is not theirs.
    asked: what was requested, as "METHOD path", in order.
    """

    def __init__(
        self,
        files: dict[str, Path],
        *,
        breaks: dict[str, int] | None = None,
        claims: dict[str, int] | None = None,
    ) -> None:
        self.files, self.breaks, self.claims = files, dict(breaks or {}), claims or {}
        self.asked: list[str] = []
        self._digests: dict[Path, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def digest(self, file: Path) -> str:
        """SHA-256 of a file."""
        if file not in self._digests:
            with file.open("rb") as opened:
                self._digests[file] = hashlib.file_digest(opened, "sha256").hexdigest()
        return self._digests[file]

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """The environment of a user whose home folder, with all caches, is `home`, and whose hub this is."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_", "TORCH_HOME"))}
        return {**kept, "HOME": str(home), "HF_ENDPOINT": self.url, "NO_PROXY": "127.0.0.1,localhost", **more}


def _handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _answer(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            if found := re.fullmatch(r"/(?P<repository>[^/]+/[^/]+)/resolve/[^/]+/(?P<name>[^?]+)", self.path):
                self._tell_of(found["repository"], found["name"])
            elif self.path.startswith("/blobs/"):
                self._send_file(self.path.removeprefix("/blobs/"))
            else:
                self._headers(HTTPStatus.NOT_FOUND)

        def _tell_of(self, repository: str, name: str) -> None:
            file = hub.files.get(f"{repository}/{name}")
            if file is None:
                known = any(path.startswith(f"{repository}/") for path in hub.files)
                code = "EntryNotFound" if known else "RepoNotFound"
                self._headers(HTTPStatus.NOT_FOUND, {"X-Error-Code": code, "X-Repo-Commit": COMMIT})
                return
            digest = hub.digest(file)
            self._headers(
                HTTPStatus.FOUND,
                {
                    "Location": f"http://localhost:{hub.port}/blobs/{repository}/{name}",
                    "X-Repo-Commit": COMMIT,
                    "X-Linked-Etag": f'"{digest}"',
                    "X-Linked-Size": str(hub.claims.get(f"{repository}/{name}", file.stat().st_size)),
                    "ETag": f'"{digest[:32]}"',
                },
            )

        def _send_file(self, key: str) -> None:
            file = hub.files[key]
            size = file.stat().st_size
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
            status = HTTPStatus.PARTIAL_CONTENT if "Range" in self.headers else HTTPStatus.OK
            ranged = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if "Range" in self.headers else {}
            self._headers(status, ranged, length=size - start)
            if self.command == "HEAD":
                return
            end = size
            if hub.breaks.get(key):
                hub.breaks[key] -= 1
                end = start + (size - start) // 2
                self.close_connection = True
            with file.open("rb") as opened:
                opened.seek(start)
                while start < end:
                    data = opened.read(min(CHUNK, end - start))
                    self.wfile.write(data)
                    start += len(data)

        def _headers(self, status: int, headers: dict[str, str] | None = None, length: int = 0) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()

    return Handler
