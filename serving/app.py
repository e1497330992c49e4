"""The web page: enhance photos, measure results, look at a direction of light. Opens on this computer only.

python -m serving.app [--port 7860] [--host 127.0.0.1]          make app
"""

if __name__ == "__main__":  # before other imports: Ctrl-C in the middle of them is no traceback
    from common.interrupt import without_traceback

    without_traceback()

import argparse
import importlib.util
import os
import socket

from common.cli import EXIT_OK, ArgumentParser, run
from common.console import say
from common.errors import UserError
from common.files import own_folder
from common.interrupt import sigterm_too

LARGEST_UPLOAD = 100 * 2**20  # bytes of one file
HINT = "pip install --no-deps -r requirements-app.txt"
# Nothing is asked of other computers, whatever the page's own files name.
POLICY = (
    "default-src 'self' blob: data:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; frame-ancestors 'self'"
)
CSS = """
.gradio-container { max-width: 1180px !important; width: 100% !important; margin: 0 auto !important; }
td.download { min-width: 5rem !important; } /* leaves the names of files more than two letters */
#comparison img { object-fit: contain; }
footer { display: none !important; }
"""
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]


def main(argv: list[str]) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; others than this computer's own "
                        "open the page to everybody who reaches it (default: %(default)s)")  # fmt: skip
    args = parser.parse_args(argv)
    if not 0 < args.port < 65536:
        raise UserError(f"--port: expected 1 to 65535, found {args.port}")
    if importlib.util.find_spec("gradio") is None:
        raise UserError(f"serving.app: expected Gradio to be installed ({HINT}), found no such package")
    _check_free(args.host, args.port)
    sigterm_too()  # or the photos would stay on the disk
    with own_folder("backlit-app-") as folder:
        # read when Gradio is imported
        os.environ |= {"GRADIO_TEMP_DIR": str(folder / "uploads"), "GRADIO_ANALYTICS_ENABLED": "False"}
        os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1"}
        from serving.page import build

        page = build(folder)
        say(f"http://{args.host}:{args.port}  (Ctrl-C stops it; photos are forgotten then)")
        page.launch(**options(args.host, args.port))
    return EXIT_OK


def _check_free(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise UserError(
            f"--host, --port: expected an address to listen at, found {host}:{port}: {error.strerror}"
        ) from None


def options(host: str, port: int) -> dict:
    """What the page is launched with: uploads bounded, nothing from elsewhere, no files but those uploaded or made."""
    import gradio as gr
    from starlette.middleware import Middleware

    return {
        "server_name": host,
        "server_port": port,
        "quiet": True,
        "share": False,
        "show_error": False,
        "max_file_size": LARGEST_UPLOAD,
        "enable_monitoring": False,
        "ssr_mode": False,
        "footer_links": [],
        "theme": gr.themes.Base(primary_hue="amber", neutral_hue="stone", font=FONTS, font_mono=["monospace"]),
        "css": CSS,
        "app_kwargs": {"middleware": [Middleware(_Headers)], "docs_url": None, "redoc_url": None},
    }


class _Headers:
    """Adds `POLICY` to each answer."""

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        async def with_policy(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)


if __name__ == "__main__":
    run(main)
