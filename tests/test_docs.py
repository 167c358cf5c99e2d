"""The docs agree with the code: generated pages are current, links resolve, and named commands and fields exist."""

from __future__ import annotations

import importlib.util
import re
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from configs.json_schema import nested_section, values_schema
from configs.json_schema import sections as sections_of
from configs.recipe import load_recipe
from configs.schema import Recipe
from launch.cli import main

ROOT = Path(__file__).resolve().parent.parent
HISTORY = {"CHANGELOG.md", "log.md"}
"""Pages that use the names of their time."""
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CURRENT_PAGES = [page for page in PAGES if page.name not in HISTORY]
SCHEMA = Recipe.model_json_schema()
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
FIELD = re.compile(r"(?<![\w./-])([a-z_]+(?:(?:\[\])?\.[A-Za-z0-9_*-]+)+)(?![\w/(-])")
FILE_ENDINGS = {"json", "model", "py", "md", "yaml", "html", "jsonl", "parquet", "tiktoken", "xz"}


def _build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = _build()
GENERATED = BUILD.pages()


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", GENERATED, ids=_name)
def test_a_generated_page_is_current(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == GENERATED[page], "run `python docs/build.py`"


def test_every_recipe_field_has_a_description() -> None:
    sections = sections_of(SCHEMA)
    missing = [
        f"{paths[0]}.{name}"
        for paths, section in sections
        for name, field in section["properties"].items()
        if not field.get("description")
    ]
    assert missing == []


def test_the_readme_stays_short() -> None:
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") < 150


def test_the_readmes_recipe_is_valid(tmp_path: Path) -> None:
    text = _yaml_blocks(ROOT / "README.md")[0]
    recipe = tmp_path / "my.yaml"
    recipe.write_text(text.replace("extends: ", f"extends: {ROOT / 'configs'}/"), encoding="utf-8")
    assert load_recipe(recipe, []).name == "mine"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://", "mailto:")):
            continue
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in _anchors(found)):
            broken.append(target)
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """The anchors that a forge gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", CURRENT_PAGES, ids=_name)
def test_commands_in_code_exist(page: Path) -> None:
    code = "\n".join(CODE.findall(page.read_text(encoding="utf-8")))
    named = set(re.findall(r"(?:^|[\s`|])twofold ([a-z][a-z-]*)\b(?![/.])", code))
    assert {name for name in named if not _is_command(name)} == set()


@cache
def _is_command(name: str) -> bool:
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            return main([name, "--help"]) == 0
    except SystemExit as done:
        return done.code == 0


@pytest.mark.parametrize("page", CURRENT_PAGES, ids=_name)
def test_recipe_fields_in_code_exist(page: Path) -> None:
    """Dotted paths that begin with a section of the recipe, in backticks and code blocks, Python apart."""
    unknown = []
    text = re.sub(r"```python.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for code in CODE.findall(text):
        for path in FIELD.findall(code):
            names = path.replace("[]", "").split(".")
            is_section = names[0] in Recipe.model_fields and names[0] != "name"
            if is_section and not _is_file(names) and not _exists(SCHEMA, names):
                unknown.append(path)
    assert unknown == []


def _is_file(names: list[str]) -> bool:
    """Whether a dotted name is a file (tokenizer.json) or something in a module (launch.cli.main)."""
    modules = [ROOT.joinpath(*names[:count]).with_suffix(".py") for count in range(2, len(names) + 1)]
    return names[-1] in FILE_ENDINGS or any(module.exists() for module in modules)


def _exists(section: dict[str, Any], names: list[str]) -> bool:
    """Whether a path of fields leads somewhere; names of sources, phases and the like are free."""
    for position, name in enumerate(names):
        field = section["properties"].get(name)
        if field is None:
            return position == 1 and names[0] == "phases" and _exists(section, names[2:])
        nested = nested_section(SCHEMA, field)
        rest = names[position + 1 :]
        if nested is None:
            return not rest or values_schema(field) is not None
        if nested[0] == ".*":
            return len(rest) <= 1 or _exists(nested[1], rest[1:])
        section = nested[1]
    return True


@pytest.mark.parametrize("page", CURRENT_PAGES, ids=_name)
def test_recipe_fragments_use_fields_that_exist(page: Path) -> None:
    unknown = []
    for text in _yaml_blocks(page):
        tree = yaml.safe_load(text)
        if isinstance(tree, dict) and set(tree) <= {*Recipe.model_fields, "extends"}:
            tree.pop("extends", None)
            unknown += _unknown(SCHEMA, tree, "")
    assert unknown == []


def _yaml_blocks(page: Path) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def _unknown(section: dict[str, Any], tree: dict[str, Any], path: str) -> list[str]:
    found = []
    for name, value in tree.items():
        field = section["properties"].get(name)
        if field is None:
            found.append(path + name)
        elif nested := nested_section(SCHEMA, field):
            for entry in _entries(value, nested[0]):
                found += _unknown(nested[1], entry, f"{path}{name}{nested[0]}.")
    return found


def _entries(value: Any, kind: str) -> list[dict[str, Any]]:
    """The sections that a field holds: one, a list of them ([]), or one per name (.*)."""
    if kind == ".*":
        return list(value.values())
    entries = value if kind == "[]" else [value]
    return [entry for entry in entries if isinstance(entry, dict)]
