"""What stands on the web page, and what its buttons do. Imports Gradio, so `serving.app` imports it last.

Handlers take what the widgets hold, as Gradio gives it: uploads as paths, settings as their values.
"""

from pathlib import Path

import gradio as gr
import numpy as np

from common.errors import UserError
from serving.finish import Finish
from serving.strength import Strength
from serving.studio import ENCODERS, Studio, measured, read_direction, told, weight_files

MOST_PHOTOS = 50  # at once
FORGET_AFTER = 3600  # seconds that uploads stay on the disk
USES = {
    "backlit.safetensors": "mixed folders",
    "rave.safetensors": "backlit photos only",
    "free.safetensors": "trained on free photos only",
}
PROGRESS = gr.Progress()  # Gradio gives a handler with this default the bar of its call


def build(work: Path) -> gr.Blocks:
    """The page. `work`: a folder for maps and results."""
    handlers = Handlers(Studio(work))
    with gr.Blocks(
        title="Backlit photo enhancement", analytics_enabled=False, delete_cache=(600, FORGET_AFTER)
    ) as page:
        gr.Markdown("# Backlit photo enhancement\nPhotos stay on this computer.")
        weights = _enhance_tab(handlers)
        _measure_tab(handlers)
        _direction_tab(handlers, weights)
    return page


class Handlers:
    """What the page's events do with the photos of one server."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def opened(self, files: list[str] | None) -> dict:
        """A choice among the photos, where there are several."""
        if files and len(files) > MOST_PHOTOS:
            raise _slip(f"Expected at most {MOST_PHOTOS} photos at once, found {len(files)}.")
        names = [(Path(file).name, number) for number, file in enumerate(files or [])]
        return gr.update(choices=names, value=0 if names else None, visible=len(names) > 1)

    def look(self, files, number, name, auto, strength, highlights, denoise, dither, progress=PROGRESS) -> tuple:
        """Comparison, map and message; the network runs where the map is not known yet."""
        photo = _chosen(files, number)
        if photo is None:
            return None, None, "", None
        try:
            view = self.studio.view(photo, name, lambda done: progress(done, desc="Illumination map"))
        except UserError as error:
            return None, None, f"⚠️ {told(error, photo)}", None
        grey = (view.illumination.clip(0, 1) * 255).astype("uint8")
        height, width = view.photo.shape[:2]
        enhancer = self.studio.enhancer(name)
        message = (
            f"{Path(photo).name}, shown at {width} × {height} px · {enhancer.choice.device}, "
            f"{enhancer.precision_of(view.photo)}, {enhancer.choice.backend}"
        )
        finish = _finish(highlights, denoise, dither)
        result = self.studio.result(view, name, _strength(auto, strength), finish)
        return (view.photo, result), grey, message, None

    def slide(
        self, files, number, name, auto, strength, highlights, denoise, dither
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The comparison at another strength or finish, from the map that is there."""
        photo = _chosen(files, number)
        try:
            view = self.studio.view(photo, name) if photo else None
        except UserError:
            view = None
        if view is None:
            return None
        finish = _finish(highlights, denoise, dither)
        return view.photo, self.studio.result(view, name, _strength(auto, strength), finish)

    def save(self, files, name, auto, strength, highlights, denoise, dither, progress=PROGRESS) -> tuple[dict, str]:
        """Results at full size; where photos failed, a line for each and how many were saved."""
        if not files:
            raise _slip("Expected a photo, found none: drop one into the box first.")
        written, failed = self.studio.write(
            files,
            name,
            _strength(auto, strength),
            lambda done: progress(done, desc="Full size"),
            _finish(highlights, denoise, dither),
        )
        lines = [f"⚠️ {line}" for line in failed]
        lines += [f"{len(written)} of {len(files)} photos saved."] if failed else []
        return gr.update(value=written or None, visible=bool(written)), "\n\n".join(lines)

    def measure(self, result, truth) -> tuple[list[list[str]] | None, str]:
        """Rows of figures, and why some are missing."""
        if not result or not truth:
            raise _slip("Expected a result and its ground truth, found one file or none.")
        try:
            return measured(result, truth)
        except UserError as error:
            return None, f"⚠️ {told(error, result, truth)}"

    def read(self, photo, name, encoder, dark, bright, saved) -> tuple:
        """Where photo and result lie along a direction, the words near it, and what went wrong."""
        if not photo:
            raise _slip("Expected a photo, found none.")
        try:
            view = self.studio.view(photo, name)
            result = self.studio.result(view, name, 1.0)
            found = read_direction(view.photo, result, encoder, dark, bright, saved)
        except UserError as error:
            return None, None, f"⚠️ {told(error, photo, saved)}"
        return found.projections, found.words, ""


def _slip(message: str) -> gr.Error:
    """A user's slip, shown on the page; the terminal gets no traceback of it."""
    return gr.Error(message, print_exception=False)


def _chosen(files: list[str] | None, number: int | None) -> str | None:
    return files[min(number or 0, len(files) - 1)] if files else None


def _strength(auto: bool, strength: float) -> Strength:
    return "auto" if auto else strength


def _finish(highlights: str, denoise: bool, dither: bool) -> Finish:
    return Finish(highlights=highlights, denoise="auto" if denoise else "off", dither=dither)


def _enhance_tab(handlers: Handlers) -> gr.Dropdown:
    """Returns the choice of weights, which other tabs go by."""
    with gr.Tab("Enhance"), gr.Row():
        with gr.Column(scale=1, min_width=310):
            files = gr.File(label="Photos", file_count="multiple", type="filepath", height=170, elem_id="photos")
            which = gr.Dropdown([], label="Show", visible=False, interactive=True, elem_id="which")
            strength = gr.Slider(0, 1, 1, step=0.01, label="Strength", elem_id="strength")
            auto = gr.Checkbox(label="Strength by each photo's brightness", interactive=True)
            names = weight_files()
            choices = [(f"{Path(name).stem}: {USES[name]}" if name in USES else name, name) for name in names]
            name = gr.Dropdown(choices, value=names[0], label="Weights", interactive=True, elem_id="weights")
            finish = _finish_settings()
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
    shown = [comparison, grey, message, results]
    how = [files, which, name, auto, strength, *finish]
    files.change(handlers.opened, files, which).then(handlers.look, how, shown)
    which.input(handlers.look, how, shown)
    name.change(handlers.look, how, shown)
    for setting in (auto, strength, *finish):
        setting.change(handlers.slide, how, comparison, show_progress="hidden", trigger_mode="always_last")
    button.click(handlers.save, [files, name, auto, strength, *finish], [results, message])
    return name


def _finish_settings() -> list[gr.Dropdown | gr.Checkbox]:
    """Highlights, denoise, dither."""
    with gr.Accordion("Finish", open=False):
        choices = [("cut at white", "clip"), ("keep their hue", "hue"), ("compress", "shoulder")]
        return [
            gr.Dropdown(choices, value="clip", label="Highlights", interactive=True),
            gr.Checkbox(label="Remove noise from shadows", interactive=True),
            gr.Checkbox(label="Dither against banding", interactive=True),
        ]


def _measure_tab(handlers: Handlers) -> None:
    with gr.Tab("Measure"):
        gr.Markdown("A result against its ground truth, of the same size.")
        with gr.Row():
            result = gr.File(label="Result", type="filepath", height=170, elem_id="result")
            truth = gr.File(label="Ground truth", type="filepath", height=170, elem_id="truth")
        button = gr.Button("Measure", variant="primary")
        figures = gr.Dataframe(headers=["protocol", "PSNR (dB)", "SSIM", "LPIPS"], interactive=False, elem_id="figures")
        message = gr.Markdown()
    button.click(handlers.measure, [result, truth], [figures, message])


def _direction_tab(handlers: Handlers, weights: gr.Dropdown) -> None:
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
        button, message = gr.Button("Look", variant="primary", elem_id="look"), gr.Markdown()
        places = gr.Dataframe(headers=["", "cosine with the direction"], interactive=False, elem_id="places")
        words = gr.Dataframe(headers=["nearest", "cosine", "farthest", "cosine "], interactive=False, elem_id="words")
    button.click(handlers.read, [photo, weights, encoder, dark, bright, saved], [places, words, message])
