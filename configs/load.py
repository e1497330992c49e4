"""YAML file and `--set` overrides -> a validated config, with one-line errors.

Errors name the file and the key, what was expected and what was found; a misspelt key gets a
"did you mean".
"""

import contextlib
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from common.console import note
from common.errors import UserError
from common.paths import REPO_ROOT, is_file, read_text, what_is_at
from configs import published
from configs.changes import as_yaml, flat
from configs.effects import without_effect
from configs.fitting import Typed, fit, plain, section_type
from configs.reading import Scalar, parse

CONFIG_ROOT = Path(__file__).resolve().parent

LARGEST_FILE = 2**18  # bytes of a config
LONGEST_SHOWN = 200  # characters of a wrong value
MOST_SHOWN = 8  # numbers of a wrong list

ConfigT = TypeVar("ConfigT", bound=BaseModel)


def find_config(name: str) -> Path:
    """The file that `--cfg NAME` means: a path, or a bare file name somewhere under `configs/`.

    Raises UserError where there is none, or more than one.
    """
    what = what_is_at(name)
    if what == "a file":
        return Path(name)
    path = Path(name)
    if len(path.parts) == 1:  # also where a run's folder has the name
        files = sorted(file for file in CONFIG_ROOT.rglob("*.yaml") if name in (file.name, file.stem))
        if len(files) == 1:
            return files[0]
        if files:
            raise UserError(f"--cfg {name}: several files of this name: {', '.join(map(shown, files))}")
    if what != "nothing there":
        raise UserError(f"--cfg {name}: expected a YAML file, found {what}")
    for root in (REPO_ROOT, CONFIG_ROOT):
        if is_file(root / path):
            return root / path
    shipped = sorted(p.name for p in CONFIG_ROOT.rglob("*.yaml"))
    raise UserError(
        f"--cfg {name}: no such file; configs shipped under configs/: {', '.join(shipped)}"
        f"{_did_you_mean(name, shipped)}"
    )


def load_config(
    schema: type[ConfigT], name: str, overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> ConfigT:
    """Read a YAML file, apply `--set` overrides `KEY=VALUE`, then flags {key: value}, and validate against `schema`.

    Notes name what was written without effect. Raises UserError with one line that names the file and the key.
    """
    path = find_config(name)
    where = shown(path)
    text = read_text(path, LARGEST_FILE)
    try:
        tree = parse(text)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    tree = {} if tree is None or (isinstance(tree, Scalar) and tree.value is None) else tree
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected sections with keys, found {_kind(plain(tree))}")
    notes = _adapted(tree, schema, where)
    given: dict[str, Any] = {}
    for override in overrides:
        _apply_override(given, override, schema)
    for key, value in (flags or {}).items():
        _put(given, key, value, key, schema)
    _adapted(given, schema, "command line")
    required = {name: {} for name, field in schema.model_fields.items() if field.is_required()}
    written = required | tree  # so that keys are missing, not whole sections
    tree = fit(_merged(written, given), schema)
    try:
        config = schema.model_validate(tree)
    except ValidationError as error:
        key = _key(_first(error))
        if any(key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.") for name in flat(given)):
            where = "command line"
        raise UserError(f"{where}: {_explain(error, schema)}") from None
    typed, alone = flat(given), config
    if given:  # what the command line makes idle in the file is no mistake of the file
        with contextlib.suppress(ValidationError):  # the photos may be on the command line alone
            alone = schema.model_validate(fit(_merged(written, {"data": given.get("data", {})}), schema))
    notes += without_effect(alone, [key for key in flat(tree) if key not in typed])
    for place, remarks in ((where, notes), ("command line", without_effect(config, typed, typed=True))):
        for remark in remarks:
            note(f"{place}: {remark}")
    return config


def dump_config(config: BaseModel) -> str:
    """The resolved config as YAML text that `load_config` reads back."""
    return as_yaml(config.model_dump())


def _adapted(tree: dict, schema: type[BaseModel], where: str) -> list[str]:
    try:
        return published.adapt(tree, schema)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _apply_override(tree: dict, override: str, schema: type[BaseModel]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override}: expected KEY=VALUE, found {'no key' if equals else 'no equals sign'}")
    _put(tree, key.strip(), Typed(text), f"--set {override}", schema)


def _put(tree: dict, key: str, value: Any, what: str, schema: type[BaseModel]) -> None:
    *sections, last = key.split(".")
    for depth, section in enumerate(sections, 1):
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            above = ".".join(sections[:depth])
            if any(known.startswith(f"{above}.") for known in all_keys(schema)):  # `what` may be right, and a flag's
                told = f"'{above}' is a section, not a value; set its keys one by one: --set {above}.KEY=VALUE"
                raise UserError(f"--set {above}={tree.text}: {told}")
            raise UserError(f"{what}: '{section}' is a value, not a section")
    tree[last] = value


def _merged(tree: Any, given: Any) -> Any:
    """`given` over `tree`, section by section."""
    if not isinstance(tree, dict) or not isinstance(given, dict):
        return given
    return {**tree, **{key: _merged(tree.get(key), value) for key, value in given.items()}}


def _explain(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first problem in one line, unknown keys first, and how many more there are."""
    problems = error.errors(include_url=False, include_context=False)
    problem = _first(error)
    key = _key(problem)
    told = {key}
    if problem["type"] == "extra_forbidden":
        message = f"unknown key '{key}'{_hint(key, schema)}"
    elif problem["type"] == "missing":
        told |= {_key(p) for p in problems if p["type"] == "missing"}
        message = f"missing: {', '.join(sorted(told))}; give what is missing in the file or with --set KEY=VALUE"
    else:
        # a key of several types has a problem with each
        texts = [_expected(p["msg"]) for p in problems if _key(p) == key]
        first, *others = (text[0].lower() + text[1:] for text in dict.fromkeys(texts))
        expected = " or ".join([first, *(text.removeprefix("expected ") for text in others)])
        message = f"{key}: {expected}" + ("" if ", found " in expected else f", found {_kind(problem['input'])}")
    more = len({_key(p) for p in problems} - told)
    return message + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def _expected(message: str) -> str:
    """What pydantic says of a value, in our words."""
    message = message.replace("Input should be", "expected").replace("a valid ", "")
    message = re.sub(r"dictionary or instance of \w+", "a section with keys", message)
    return re.sub(r"List should have (.*) after validation, not .*", r"expected \1", message)


def _hint(key: str, schema: type[BaseModel]) -> str:
    """What an unknown key may have been meant to be."""
    section, _, name = key.rpartition(".")
    every = all_keys(schema)
    siblings = [k.rpartition(".")[2] for k in every if k.rpartition(".")[0] == section]
    if close := _closest(name, siblings):
        return f"; did you mean '{f'{section}.' if section else ''}{close}'?"
    elsewhere = [k for k in every if k.rpartition(".")[2] == name] or ([] if siblings else [_closest(key, every)])
    if elsewhere and elsewhere[0]:
        return f"; did you mean '{elsewhere[0]}'?"
    return f"; known here: {', '.join(siblings)}" if siblings else ""


def _first(error: ValidationError) -> Any:
    return min(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")


def _key(problem: Any) -> str:
    # pydantic adds the tried type ("str", "list[str]", "function-after[...]") behind a key that may have several
    return ".".join(
        str(part)
        for part in problem["loc"]
        if not re.fullmatch(r"str|int|float|constrained-\w+|\w[\w-]*\[.*\]", str(part))
    )


def all_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Every section and key of a schema, dotted."""
    keys = []
    for name, field in schema.model_fields.items():
        keys.append(prefix + name)
        section = section_type(field.annotation)
        if section:
            keys += all_keys(section, f"{prefix}{name}.")
    return keys


def _kind(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict):
        return "a section" if value else "an empty section"
    if isinstance(value, str):
        return f"the text '{value if len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + '...'}'"
    if isinstance(value, list):
        simple = len(value) < MOST_SHOWN and all(isinstance(item, int | float) for item in value)
        return str(value) if simple else f"a list of {len(value)}"
    return repr(value)


def _did_you_mean(name: str, candidates: list[str]) -> str:
    close = _closest(name, candidates)
    return f"; did you mean '{close}'?" if close else ""


def _closest(name: str, candidates: list[str]) -> str | None:
    """The candidate that a name was meant to be, or None where none is near or several are alike.

    A slip of the keyboard, an abbreviation ("learning_rate": "lr"), or the one that shares most words with it.
    """
    if slip := difflib.get_close_matches(name, candidates, n=1, cutoff=0.86):
        return slip[0]
    words = re.split(r"[._]", name)
    initials = "".join(word[:1] for word in words)
    if len(words) > 1 and initials in candidates:
        return initials

    def alike(candidate: str) -> tuple[int, bool]:
        others = re.split(r"[._]", candidate)
        return len(set(words) & set(others)), others[0] == words[0]

    most = max(map(alike, candidates), default=(0, False))
    if most[0]:
        best = [candidate for candidate in candidates if alike(candidate) == most]
        return best[0] if len(best) == 1 else None
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.7)
    return near[0] if near else None


def shown(path: Path) -> str:
    """A path as short as it is from the current folder."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
