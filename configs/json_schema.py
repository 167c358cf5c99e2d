"""The JSON schema of a recipe, for editors, the reference page and the hints of error messages.

Contract: derived from the sections' types and docstrings; pure, and some milliseconds, so it is built on demand.
"""

from __future__ import annotations

from typing import Any

from configs.schema import Recipe
from twofold.errors import nearest

Schema = dict[str, Any]


def recipe_schema() -> Schema:
    """The JSON schema of a recipe file, which may leave out whatever it inherits through `extends`."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Twofold recipe"
    extends = {"type": "string", "description": "Recipe to inherit from, relative to this file."}
    schema["properties"] = {"extends": extends, **schema["properties"]}
    _drop_required(schema)
    return schema


def sections(schema: Schema) -> list[tuple[list[str], Schema]]:
    """(paths, section) in the order of the recipe; most sections have one path."""
    found: dict[int, tuple[list[str], Schema]] = {}

    def visit(path: str, section: Schema) -> None:
        if id(section) in found:
            found[id(section)][0].append(path)
            return
        found[id(section)] = ([path], section)
        for name, field in section["properties"].items():
            nested = nested_section(schema, field)
            if nested:
                visit(f"{path}.{name}{nested[0]}".lstrip("."), nested[1])

    visit("", schema)
    return list(found.values())


def nested_section(schema: Schema, field: Schema) -> tuple[str, Schema] | None:
    """The section that a field holds, and how its path goes on: '' itself, '[]' a list of it, '.*' one per name."""
    for option in field.get("anyOf", [field]):
        if "$ref" in option:
            target = schema["$defs"][option["$ref"].rsplit("/", 1)[1]]
            return ("", target) if "properties" in target else None
        for suffix, inner in (("[]", option.get("items")), (".*", values_schema(option))):
            nested = nested_section(schema, inner) if isinstance(inner, dict) else None
            if nested:
                return suffix + nested[0], nested[1]
    return None


def values_schema(option: Schema) -> Any:
    """The schema of a mapping's values, whatever restricts its keys."""
    return next(iter(option.get("patternProperties", {}).values()), option.get("additionalProperties"))


def keys_at(parts: list[str]) -> list[str]:
    """The field names of the section at a path of keys, names and list indices; empty if there is no section."""
    schema = recipe_schema()
    section: Schema = schema
    rest = list(parts)
    while rest:
        nested = nested_section(schema, section["properties"].get(rest.pop(0), {}))
        if nested is None:
            return []
        suffix, section = nested
        rest = rest[suffix.count("[]") + suffix.count("*") :]
    return list(section["properties"])


def suggestion(parts: list[str]) -> str:
    """A hint for an unknown key: what it may stand for in its section, or else in any other one."""
    known = keys_at(parts[:-1])
    if near := nearest(parts[-1], known):
        return f"did you mean {' or '.join(near)}?"
    paths = [
        f"{path}.{key}".lstrip(".").replace("[]", ".NAME").replace("*", "NAME")
        for (path, *_), section in sections(recipe_schema())
        for key in section["properties"]
        if nearest(parts[-1], [key])
    ]
    if paths:
        return f"did you mean {' or '.join(paths[:3])}?"
    return f"remove it, or use one of {', '.join(known)}" if known else "remove it"


def _drop_required(node: Any) -> None:
    """Remember what is required as `x-required`: editors would flag every field that a recipe inherits."""
    if isinstance(node, dict):
        if isinstance(node.get("required"), list):
            node["x-required"] = node.pop("required")
        for value in node.values():
            _drop_required(value)
    elif isinstance(node, list):
        for value in node:
            _drop_required(value)
