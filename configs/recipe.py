"""YAML and dotted overrides -> `Recipe`.

Contract: `load_recipe` returns a fully valid recipe or raises `UserError` with one line for every
problem, each naming the field, the value and the hint. `extends: other.yaml` (beside the file, or shipped)
merges sections key by key, and the extending file wins; `sources: {name: null}` removes an inherited
source. Numbers and booleans are read as YAML 1.2 reads them (`3e-4` is a number, `off` is a word); a key
written twice is refused. A word without a suffix, such as `smoke`, names a recipe of this folder. Input files
named by a recipe are looked for in the working directory first, then beside the file that names them; those
named by an override, in the working directory only.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from configs.checks import check_recipe
from configs.json_schema import keys_at, suggestion
from configs.renamed import refuse_old_names
from configs.schema import Recipe
from twofold.errors import Problem, UserError, user_error

_SHIPPED = Path(__file__).resolve().parent
_FILE = "file"
_INPUT_FILES = {
    "sources": {"*": {"path": _FILE}},
    "data": {"classifiers": {"*": {"train": {"*": _FILE}}}, "decontamination": {"benchmarks": {"*": _FILE}}},
    "model": {"start_from": _FILE},
    "launch": {"hostfile": _FILE},
}
"""Fields that name input files, `*` for any name or index."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and reads numbers and booleans as YAML 1.2 does."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                problem=f"the key {key!r} is written twice", problem_mark=key_node.start_mark
            )
        seen.add(key)
    mapping: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return mapping


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# YAML 1.1 reads off, no and on as booleans; here only true and false are.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+0123456789.")
)


def recipe_file(name: str | Path) -> Path:
    """The file of a recipe that is given by its path or, if it is a shipped one, by its short name."""
    path, shipped = Path(name), _SHIPPED / f"{name}.yaml"
    short = path.name == str(name) and not path.suffix
    return shipped if short and not path.exists() and shipped.exists() else path


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, merge, override, validate. `overrides` are `dotted.key=value` (value in YAML)."""
    tree = _read(recipe_file(path), ())
    for override in overrides:
        _apply(tree, override)
    return parse_recipe(tree)


def parse_recipe(tree: dict[str, Any]) -> Recipe:
    """Validate a recipe tree (as YAML gives it)."""
    refuse_old_names(tree)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError([_problem(e) for e in error.errors(include_url=False)]) from None
    check_recipe(recipe)
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out; loads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(path: Path, parents: tuple[Path, ...]) -> dict[str, Any]:
    if path in parents:
        raise user_error("extends", str(path), "extends itself", "remove the circular `extends`")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        shipped = ", ".join(sorted(file.stem for file in _SHIPPED.glob("*.yaml") if file.stem != "base"))
        inside = path / "recipe.yaml"
        hint = f"did you mean {inside}" if inside.is_file() else f"name a recipe file, or a shipped recipe: {shipped}"
        raise user_error("recipe", str(path), f"cannot be read ({reason})", hint) from None
    tree = _parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise user_error("recipe", str(path), "has no sections", "write `section: …` keys at its top level")
    _locate_inputs(tree, _INPUT_FILES, path.parent)
    base = tree.pop("extends", None)
    if base is None:
        return tree
    inherited = _read(_extended(path.parent, str(base)), (*parents, path.resolve()))
    merged = _merged(inherited, tree)
    if isinstance(merged.get("sources"), dict) and isinstance(inherited.get("sources"), dict):
        known = inherited["sources"]
        merged["sources"] = {
            name: source for name, source in merged["sources"].items() if source is not None or name not in known
        }
    return merged


def _extended(folder: Path, name: str) -> Path:
    """The recipe that `extends` names: a file beside the extending one, or else a shipped one of that name."""
    beside, shipped = folder / name, _SHIPPED / name
    return shipped if not beside.exists() and Path(name).name == name and shipped.exists() else beside.resolve()


def _locate_inputs(node: Any, fields: Any, folder: Path) -> None:
    """Rewrite paths of input files that are missing in the working directory and lie in the recipe's folder."""
    items = list(enumerate(node)) if isinstance(node, list) else list(node.items()) if isinstance(node, dict) else []
    for key, value in items:
        below = fields.get(key, fields.get("*")) if isinstance(fields, dict) else None
        if below is _FILE and isinstance(value, str):
            node[key] = _located(value, folder)
        elif below:
            _locate_inputs(value, below, folder)


def _located(text: str, folder: Path) -> str:
    """The path, which may follow `LABEL=` and be a pattern or an address; unchanged if nothing lies in `folder`."""
    label, equals, name = text.rpartition("=")
    if not name or "://" in name or Path(name).is_absolute() or _exists(Path(), name) or not _exists(folder, name):
        return text
    return f"{label}{equals}{folder / name}"


def _exists(folder: Path, name: str) -> bool:
    return next(folder.glob(name), None) is not None if glob.has_magic(name) else (folder / name).exists()


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "is not YAML"
        raise user_error(f"{where}{line}", None, str(problem).replace("\n", " "), "fix the YAML there") from None


def _merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise user_error("override", override, "is not key=value", "write e.g. seed=7")
    *parents, last = key.strip().split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        node = _child(node, part, ".".join(parents[: depth + 1]), override)
    value = _parse_yaml(text, f"override {key}")
    if isinstance(node, list):
        node[_list_index(node, last, key, override)] = value
    elif isinstance(node, dict):
        if parents == ["sources"] and value is None and last in node:
            del node[last]
        else:
            node[last] = value
    else:
        raise user_error(key, override, "points into a value that has no keys", "shorten the key")


def _child(node: Any, part: str, where: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_list_index(node, part, where, override)]
    if isinstance(node, dict):
        if node.get(part) is None:
            node[part] = {}
        return node[part]
    raise user_error(where, override, "points into a value that has no keys", "shorten the key")


def _list_index(items: list[Any], part: str, where: str, override: str) -> int:
    """Lists are addressed by index or, for phases, by `name`."""
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    choices = [str(name) for name in names if name] or [f"0..{len(items) - 1}"]
    raise user_error(where, override, "is not an item of the list", f"use one of {', '.join(choices)}")


def _problem(error: Any) -> Problem:
    """Convert pydantic's error to a `Problem`."""
    parts = [str(part) for part in error["loc"]]
    field = ".".join(parts) or "recipe"
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "twofold":
        shown = None if isinstance(value, (dict, BaseModel)) else value
        return Problem(field, shown, context["problem"], context["hint"])
    if kind == "extra_forbidden":
        return Problem(field, value, "is not a key of the recipe", suggestion(parts))
    if kind == "missing":
        return Problem(field, None, "is missing and required", "add it to the recipe")
    if kind in ("model_type", "dict_type") and not isinstance(value, (dict, list)):
        keys = ", ".join(keys_at(parts)[:6])
        hint = f"write `{parts[-1]}: {{key: value}}`" + (f" with keys such as {keys}" if keys else "")
        return Problem(field, value, "is a single value where a section must be", hint)
    message = error["msg"][0].lower() + error["msg"][1:]
    expected = f"use one of {context['expected']}" if kind == "literal_error" else "correct the value"
    return Problem(field, value, message, expected)
