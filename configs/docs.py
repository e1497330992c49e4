"""Write configs/README.md and the JSON Schemas in configs/schema/ from the classes there: python -m configs.docs"""

import json
import typing
from pathlib import Path

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel

from common.files import write_text
from configs.fitting import section_type
from configs.load import CONFIG_ROOT
from configs.schema import InferenceConfig, MetricsConfig, TrainConfig
from configs.schema.base import PATH

CONFIGS = {  # name -> schema, and the shipped files of its kind
    "train": (TrainConfig, "train/*.yaml"),
    "inference": (InferenceConfig, "inference/inference.yaml"),
    "metrics": (MetricsConfig, "inference/metrics.yaml"),
}
INTRODUCTION = """# Configuration

Generated from [`schema/`](schema) by `make config-docs`; do not edit.

Every script takes `--cfg FILE` (a path, or a file name under `configs/`) and `--set key=value`, which may be
repeated. Unknown keys, keys given twice, wrong types and values out of range are refused with the name of the key;
keys that have no effect beside others are named in a note.

Values are what was written. Where a key takes text or a path, `2024-05-01`, `007`, `true` and `day #1` are text, in a
file and after `--set`; numbers, `true`, `false` and `null` are those of YAML 1.2. Lists and sections after `--set` are
written as in YAML: `--set "guidance.remove=[sky, beach]"`. In paths `~` and `$NAME` are replaced, unless a file of
the name as it is written exists. The config files of the authors' releases load as they are.

For completion and checks in an editor, point its YAML support at the JSON Schemas in [`schema/`](schema).
"""


def main() -> None:
    write(CONFIG_ROOT)


def write(folder: Path) -> None:
    """README.md and schema/*.schema.json below `folder`."""
    sections = [INTRODUCTION]
    for name, (schema, pattern) in CONFIGS.items():
        found = sorted(CONFIG_ROOT.glob(pattern))
        files = ", ".join(f"[`{p.name}`]({p.relative_to(CONFIG_ROOT).as_posix()})" for p in found)
        sections.append(
            f"## {' '.join((schema.__doc__ or '').split())}\n\nFiles: {files}\n\n" + "\n".join(_tables(schema))
        )
        text = json.dumps(schema.model_json_schema(), indent=2) + "\n"
        _write_text(folder / "schema" / f"{name}.schema.json", text)
    _write_text(folder / "README.md", "\n".join(sections))


def _tables(schema: type[BaseModel], prefix: str = "") -> list[str]:
    lines: list[str] = []
    rows = []
    for name, field in schema.model_fields.items():
        key = prefix + name
        section = section_type(field.annotation)
        if section:
            doc = " ".join((section.__doc__ or "").split())
            lines += [f"### `{key}`\n\n{doc}\n", *_tables(section, f"{key}.")]
        else:
            default = "**required**" if field.is_required() else f"`{_yaml(field.default)}`"
            meaning = " ".join((field.description or "").split())
            rows.append(f"| `{key}` | {_type(field.annotation, field.metadata)} | {default} | {meaning} |")
    table = ["| key | type, range | default | meaning |", "|---|---|---|---|", *rows, ""] if rows else []
    return table + lines


def _type(annotation: typing.Any, metadata: typing.Sequence = ()) -> str:
    if typing.get_origin(annotation) is typing.Annotated:
        base, *extra = typing.get_args(annotation)
        return _type(base, [*metadata, *_flat(extra)])
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return " \\| ".join(f"`{_yaml(a)}`" for a in arguments)
    if typing.get_origin(annotation) is list:
        count = next((m.min_length for m in metadata if isinstance(m, MinLen)), None)
        return f"list of {f'{count} × ' if count else ''}{_type(arguments[0])}"
    if arguments:
        return " or ".join(_type(a, metadata if a is not type(None) else ()) for a in arguments)
    if PATH in metadata:
        return "path"
    names = {int: "integer", float: "number", str: "text", bool: "`true` \\| `false`", type(None): "`null`"}
    signs = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
    limits = [
        f"{sign} {getattr(m, attribute):g}"
        for m in _flat(metadata)
        for kind, (sign, attribute) in signs.items()
        if isinstance(m, kind)
    ]
    return names[annotation] + (f", {', '.join(limits)}" if limits and annotation in (int, float) else "")


def _flat(metadata: typing.Sequence) -> list:
    """pydantic keeps constraints inside a FieldInfo where `Field` is used in `Annotated`."""
    flat = []
    for item in metadata:
        flat += _flat(item.metadata) if hasattr(item, "metadata") else [item]
    return [item for item in flat if not isinstance(item, MaxLen)]


def _yaml(value: typing.Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value


def _write_text(path: Path, text: str) -> None:
    write_text(path, text)


if __name__ == "__main__":
    main()
