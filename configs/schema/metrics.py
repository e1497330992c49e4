"""Keys of a measurement: compute_metrics.py."""

from typing import Literal

from configs.schema.base import PathText, PhotoData, Section


class MetricsData(PhotoData):
    """The two folders that are compared."""

    gt_images_path: PathText | None = None
    """Folder of ground truths."""
    enhanced_images_path: PathText | None = None
    """Folder of results; `name(1).png`, `name(2).png` are matched with the ground truth `name.*`."""


class MetricsOptions(Section):
    """What is measured and where it is written."""

    protocol: Literal["rgb", "paper", "both"] = "both"
    """`rgb`: the community's; `paper`: what the RAVE release computes. The console and JSON name them."""
    lpips: Literal["auto", "on", "off"] = "auto"
    """`auto`: null with the reason where AlexNet's weights cannot be had; `on`: an error then; `off`: null."""
    stlpips: Literal["auto", "alex", "vgg", "off"] = "auto"
    """ST-LPIPS, no LPIPS, at up to 512 x 512 pixels: its AlexNet or VGG network (requirements-metrics.txt);
    `auto`: AlexNet, or null with the reason where the package is missing."""
    json_file: PathText | None = None
    """JSON with the means and each image's values; null: `ENHANCED_metrics.json` beside the folder of results."""
    csv_file: PathText | None = None
    """CSV with each image's values; null: beside the JSON, with `.csv`."""
    report_file: PathText | None = None
    """HTML page with the worst and the best results, their ground truths and difference maps; null: none."""
    overwrite: bool = False
    """Replace files of these names also where they were not written by a measurement."""


class MetricsConfig(Section):
    """Measuring: `compute_metrics.py --gt DIR --enhanced DIR`."""

    data: MetricsData = MetricsData()
    metrics: MetricsOptions = MetricsOptions()
