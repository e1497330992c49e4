"""Every config key: type, range, default and where its value comes from.

Three kinds of file are described here: `TrainConfig` (train_rave.py, train.py), `InferenceConfig` (inference.py) and
`MetricsConfig` (compute_metrics.py). Unknown keys are refused, and so are values of the wrong type: nothing is cast
silently. `configs/README.md` and the JSON Schemas beside this file are generated from it by `make config-docs`.

Key names of the authors' releases are kept, so a published YAML loads; keys of ours sit beside them.
"""

from configs.schema.inference import InferenceConfig, InferenceModel
from configs.schema.method import Clip, Encoder, Guidance, GuidanceModel
from configs.schema.metrics import MetricsConfig
from configs.schema.train import TrainConfig, TrainData, method_of

__all__ = [
    "Clip",
    "Encoder",
    "Guidance",
    "GuidanceModel",
    "InferenceConfig",
    "InferenceModel",
    "MetricsConfig",
    "TrainConfig",
    "TrainData",
    "method_of",
]
