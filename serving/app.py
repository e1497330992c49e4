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
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import EXIT_OK, ArgumentParser, run
from common.console import say
from common.errors import UserError

if TYPE_CHECKING:
    import gradio

LARGEST_UPLOAD = 100 * 2**20  # bytes of one file
MOST_PHOTOS = 50  # at once
FORGET_AFTER = 3600  # seconds that uploads stay on the disk
HINT = "pip install --no-deps -r requirements-app.txt"
# Nothing is asked of other computers, whatever the page's own files name.
POLICY = (
    "default-src 'self' blob: data:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; frame-ancestors 'self'"
)
CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
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
    with tempfile.TemporaryDirectory(prefix="backlit-app-") as folder:
        # read when Gradio is imported
        os.environ |= {"GRADIO_TEMP_DIR": str(Path(folder) / "uploads"), "GRADIO_ANALYTICS_ENABLED": "False"}
        os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1"}
        page = build(Path(folder))
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


def build(work: Path) -> "gradio.Blocks":
    """The page. `work`: a folder for maps and results."""
    import gradio as gr

    from serving.finish import Finish
    from serving.studio import ENCODERS, Studio, measured, read_direction, told, weight_files

    studio, weights = Studio(work), weight_files()

    def chosen(files: list[str] | None, number: int | None) -> str | None:
        return files[min(number or 0, len(files) - 1)] if files else None

    def opened(files: list[str] | None):
        """A choice among the photos, where there are several."""
        if files and len(files) > MOST_PHOTOS:
            raise gr.Error(f"Expected at most {MOST_PHOTOS} photos at once, found {len(files)}.")
        names = [(Path(file).name, number) for number, file in enumerate(files or [])]
        return gr.update(choices=names, value=0 if names else None, visible=len(names) > 1)

    def far(auto, strength):
        return "auto" if auto else strength

    def finished(highlights, denoise, dither):
        return Finish(highlights=highlights, denoise="auto" if denoise else "off", dither=dither)

    def look(files, number, name, auto, strength, highlights, denoise, dither, progress=gr.Progress()):  # noqa: B008
        """Comparison, map and message; the network runs where the map is not known yet."""
        photo = chosen(files, number)
        if photo is None:
            return None, None, "", None
        try:
            view = studio.view(photo, name, lambda done: progress(done, desc="Illumination map"))
        except UserError as error:
            return None, None, f"⚠️ {told(error, photo)}", None
        grey = (view.illumination.clip(0, 1) * 255).astype("uint8")
        height, width = view.photo.shape[:2]
        enhancer = studio.enhancer(name)
        message = (
            f"{Path(photo).name}, shown at {width} × {height} px · {enhancer.choice.device}, "
            f"{enhancer.precision_of(view.photo)}, {enhancer.choice.backend}"
        )
        result = studio.result(view, name, far(auto, strength), finished(highlights, denoise, dither))
        return (view.photo, result), grey, message, None

    def slide(files, number, name, auto, strength, highlights, denoise, dither):
        """The comparison at another strength, from the map that is there."""
        photo = chosen(files, number)
        try:
            view = studio.view(photo, name) if photo else None
        except UserError:
            view = None
        finish = finished(highlights, denoise, dither)
        return (view.photo, studio.result(view, name, far(auto, strength), finish)) if view else None

    def save(files, name, auto, strength, highlights, denoise, dither, progress=gr.Progress()):  # noqa: B008
        if not files:
            raise gr.Error("Expected a photo, found none: drop one into the box first.")
        finish = finished(highlights, denoise, dither)
        power = far(auto, strength)
        written, failed = studio.write(files, name, power, lambda done: progress(done, desc="Full size"), finish)
        return gr.update(value=written or None, visible=bool(written)), "\n\n".join(f"⚠️ {line}" for line in failed)

    def measure(result, truth):
        if not result or not truth:
            raise gr.Error("Expected a result and its ground truth, found one file or none.")
        try:
            return measured(result, truth)
        except UserError as error:
            return None, f"⚠️ {told(UserError(told(error, result)), truth)}"

    def read(photo, name, encoder, dark, bright, saved):
        if not photo:
            raise gr.Error("Expected a photo, found none.")
        try:
            view = studio.view(photo, name)
            found = read_direction(view.photo, studio.result(view, name, 1.0), encoder, dark, bright, saved)
        except UserError as error:
            return None, None, f"⚠️ {told(error, photo)}"
        return found.projections, found.words, ""

    with gr.Blocks(
        title="Backlit photo enhancement", analytics_enabled=False, delete_cache=(600, FORGET_AFTER)
    ) as page:
        gr.Markdown("# Backlit photo enhancement\nPhotos stay on this computer.")
        with gr.Tab("Enhance"), gr.Row():
            with gr.Column(scale=1, min_width=280):
                files = gr.File(label="Photos", file_count="multiple", type="filepath", height=170, elem_id="photos")
                which = gr.Dropdown([], label="Show", visible=False, interactive=True, elem_id="which")
                strength = gr.Slider(0, 1, 1, step=0.01, label="Strength", elem_id="strength")
                auto = gr.Checkbox(label="Strength by each photo's brightness", interactive=True)
                name = gr.Dropdown(weights, value=weights[0], label="Weights", interactive=True, elem_id="weights")
                with gr.Accordion("Finish", open=False):
                    choices = [("cut at white", "clip"), ("keep their hue", "hue"), ("compress", "shoulder")]
                    highlights = gr.Dropdown(choices, value="clip", label="Highlights", interactive=True)
                    denoise = gr.Checkbox(label="Remove noise from shadows", interactive=True)
                    dither = gr.Checkbox(label="Dither against banding", interactive=True)
                button = gr.Button("Save at full size", variant="primary", elem_id="save")
                results = gr.File(
                    label="Results", file_count="multiple", visible=False, interactive=False, elem_id="results"
                )
            with gr.Column(scale=3, min_width=320):
                comparison = gr.ImageSlider(
                    label="Before and after",
                    type="numpy",
                    interactive=False,
                    max_height=640,
                    buttons=["fullscreen"],
                    elem_id="comparison",
                )
                message = gr.Markdown(elem_id="message")
                with gr.Accordion("Illumination map (white: 1, no change)", open=False):
                    grey = gr.Image(show_label=False, interactive=False, elem_id="map", buttons=[])
        with gr.Tab("Measure"):
            gr.Markdown("A result against its ground truth, of the same size.")
            with gr.Row():
                result = gr.File(label="Result", type="filepath", height=170, elem_id="result")
                truth = gr.File(label="Ground truth", type="filepath", height=170, elem_id="truth")
            measure_button = gr.Button("Measure", variant="primary")
            figures = gr.Dataframe(
                headers=["protocol", "PSNR (dB)", "SSIM", "LPIPS"], interactive=False, elem_id="figures"
            )
            measure_message = gr.Markdown()
        with gr.Tab("Direction"):
            gr.Markdown(
                "Where a photo and its result lie along a direction of light, and the words near that direction. "
                "The direction leads from one text to another, or comes out of the file that a training saved."
            )
            with gr.Row():
                photo = gr.File(label="Photo", type="filepath", height=170, elem_id="photo")
                saved = gr.File(label="Saved direction (.safetensors), instead of texts", type="filepath", height=170)
            encoder = gr.Dropdown(list(ENCODERS), value=next(iter(ENCODERS)), label="Encoder")
            with gr.Row():
                dark = gr.Textbox("a dark photo", label="From", max_length=200)
                bright = gr.Textbox("a bright photo", label="To", max_length=200)
            read_button, read_message = gr.Button("Look", variant="primary", elem_id="look"), gr.Markdown()
            places = gr.Dataframe(headers=["", "cosine with the direction"], interactive=False, elem_id="places")
            words = gr.Dataframe(
                headers=["nearest", "cosine", "farthest", "cosine "], interactive=False, elem_id="words"
            )
        shown = [comparison, grey, message, results]
        finish = [highlights, denoise, dither]
        how = [files, which, name, auto, strength, *finish]
        files.change(opened, files, which).then(look, how, shown)
        which.input(look, how, shown)
        name.change(look, how, shown)
        for setting in (auto, strength, *finish):
            setting.change(slide, how, comparison, show_progress="hidden", trigger_mode="always_last")
        button.click(save, [files, name, auto, strength, *finish], [results, message])
        measure_button.click(measure, [result, truth], [figures, measure_message])
        read_button.click(read, [photo, name, encoder, dark, bright, saved], [places, words, read_message])
    return page


if __name__ == "__main__":
    run(main)
