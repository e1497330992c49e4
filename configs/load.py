"""YAML file and `--set` overrides -> a validated config, with one-line errors.

Errors name the file and the key, what was expected and what was found; a misspelt key gets a
"did you mean".
"""

import difflib
import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from common.errors import UserError
from common.paths import REPO_ROOT

CONFIG_ROOT = Path(__file__).resolve().parent

ConfigT = TypeVar("ConfigT", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with three of YAML 1.1's traps removed.

    Duplicate keys are refused, `2e-5` is a number, and `on`/`off`/`yes`/`no` are text.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # `<<: *defaults`: what it brings may be given again
            key = self.construct_object(key_node, deep=True)
            try:
                duplicate = key in seen
            except TypeError:
                raise UserError(
                    f"line {key_node.start_mark.line + 1}: a key must be text, found a list or mapping"
                ) from None
            if duplicate:
                raise UserError(f"line {key_node.start_mark.line + 1}: key '{key}' is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf)$|^\.(?:nan|NaN)$"
    ),
    list("-+0123456789."),
)


def find_config(name: str) -> Path:
    """The file that `--cfg NAME` means: a path, or a bare file name somewhere under `configs/`.

    Raises UserError where there is none, or more than one.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"--cfg {name}: expected a YAML file, found a folder")
    if len(path.parts) == 1:
        found = sorted(file for file in CONFIG_ROOT.rglob("*.yaml") if name in (file.name, file.stem))
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"--cfg {name}: several files of this name: {', '.join(map(_shown, found))}")
    for root in (REPO_ROOT, CONFIG_ROOT):
        if (root / path).is_file():
            return root / path
    shipped = sorted(p.name for p in CONFIG_ROOT.rglob("*.yaml"))
    raise UserError(
        f"--cfg {name}: no such file; configs shipped under configs/: {', '.join(shipped)}{_did_you_mean(name, shipped)}"
    )


def load_config(schema: type[ConfigT], name: str, overrides: list[str] | None = None) -> ConfigT:
    """Read a YAML file, apply `key.path=value` overrides, validate against `schema`.

    Raises UserError with one line that names the file and the key.
    """
    path = find_config(name)
    where = _shown(path)
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise UserError(f"{where}:{line} not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{where}: cannot be read as UTF-8 text: {error}") from None
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected sections with keys, found {_kind(tree)}")
    for override in overrides or []:
        _apply_override(tree, override)
    tree = {key: {} if value is None and key in schema.model_fields else value for key, value in tree.items()}
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        given = [override.partition("=")[0].strip() for override in overrides or []]
        key = _key(_first(error))
        if any(key == name or key.startswith(f"{name}.") or (name.startswith(f"{key}.")) for name in given):
            where = "command line"
        raise UserError(f"{where}: {_explain(error, schema)}") from None


def dump_config(config: BaseModel) -> str:
    """The resolved config as YAML text that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def _apply_override(tree: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override}: expected KEY=VALUE, found {'no key' if equals else 'no equals sign'}")
    try:
        value = yaml.load(text, _Loader) if text.strip() else None
    except (yaml.YAMLError, UserError):
        value = text
    if isinstance(value, dict) and not text.lstrip().startswith("{"):
        value = text  # a path with ": " in it, which YAML reads as a mapping
    *sections, last = key.strip().split(".")
    node = tree
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise UserError(f"--set {override}: '{section}' is a value, not a section")
    node[last] = value


def _explain(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first problem in one line, unknown keys first, and how many more there are."""
    problem = _first(error)
    key = _key(problem)
    names = key.split(".")
    if problem["type"] == "extra_forbidden":
        every = _all_keys(schema)
        siblings = [k.rsplit(".", 1)[-1] for k in every if k.rpartition(".")[0] == ".".join(names[:-1])]
        close = difflib.get_close_matches(names[-1], siblings, n=1)
        elsewhere = [k for k in every if k.rsplit(".", 1)[-1] == names[-1]]
        by_path = difflib.get_close_matches(key, every, n=1)
        if close:
            hint = f"; did you mean '{'.'.join([*names[:-1], close[0]])}'?"
        elif elsewhere or by_path:
            hint = f"; did you mean '{(elsewhere or by_path)[0]}'?"
        else:
            hint = f"; known here: {', '.join(siblings)}" if siblings else ""
        message = f"unknown key '{key}'{hint}"
    elif problem["type"] == "missing":
        message = f"{key}: missing; give it in the file or with --set {key}=VALUE"
    else:
        expected = problem["msg"].replace("Input should be", "expected").replace("a valid ", "")
        message = f"{key}: {expected[0].lower() + expected[1:]}, found {_kind(problem['input'])}"
    more = len({_key(p) for p in error.errors(include_url=False)}) - 1
    return message + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def _first(error: ValidationError) -> dict:
    return min(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")


def _key(problem: dict) -> str:
    # pydantic adds the tried type ("str", "list[str]") behind a key that may have several
    return ".".join(str(part) for part in problem["loc"] if not re.fullmatch(r"str|int|float|list\[.*\]", str(part)))


def _all_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in schema.model_fields.items():
        keys.append(prefix + name)
        section = section_type(field.annotation)
        if section:
            keys += _all_keys(section, f"{prefix}{name}.")
    return keys


def section_type(annotation: Any) -> type[BaseModel] | None:
    """The section class behind a field's annotation, or None for a plain value."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((t for t in map(section_type, typing.get_args(annotation)) if t), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _kind(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict):
        return "a section" if value else "an empty section"
    if isinstance(value, str):
        return f"the text '{value}'"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value)


def _did_you_mean(name: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
