"""One module owns each heavy dependency; no module outgrows its reader; every module says its contract."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
KERNELS = (
    "data_pipeline/features/counts.py",
    "data_pipeline/features/overlap.py",
    "data_pipeline/features/repetition.py",
    "data_pipeline/features/terms.py",
    "data_pipeline/stages/connected_components.py",
    "tokenizer/engine/",
)
"""Modules of functions compiled by numba: a loop that must stay in one function may be long."""
PACKAGES = ("twofold", "configs", "data_pipeline", "tokenizer", "pretrain", "launch")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
OWNERS = {
    "deepspeed": "pretrain/engine/deepspeed_adapter.py",
    "wandb": "pretrain/hooks/wandb_mirror.py",
    "sentencepiece": "tokenizer/training/sentencepiece_model.py",
    "mecab": "tokenizer/training/morphemes.py",
    "fasttext": "data_pipeline/classification/fasttext_model.py",
    "resiliparse": ["data_pipeline/readers/html.py", "data_pipeline/readers/charset.py"],
    "zstandard": "data_pipeline/readers/members.py",
    "brotli": "data_pipeline/readers/http_messages.py",
    "trafilatura": "data_pipeline/readers/html.py",
    "fsspec": "data_pipeline/readers/storage.py",
    "py3langid": "data_pipeline/features/language.py",
    "datatrove": "launch/executors/",
    "matplotlib": "launch/reports/plots.py",
    "jinja2": "launch/reports/__init__.py",
    "numba": "twofold/compiled.py",
    "ray": "launch/executors/ray.py",
}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_each_heavy_dependency_has_one_owner() -> None:
    """A module or a folder; one in each of two stages, which never import each other."""
    importers = defaultdict(set)
    for path in MODULES:
        place = path.relative_to(ROOT).as_posix()
        for name in _imports(path) & set(OWNERS):
            importers[name].add(next((owner for owner in _owners(name) if place.startswith(owner)), place))
    assert importers == {name: set(_owners(name)) for name in OWNERS}


def _owners(name: str) -> list[str]:
    owner = OWNERS[name]
    return owner if isinstance(owner, list) else [owner]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_states_its_contract_and_stays_readable(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "begin with a docstring that states the contract"
    assert source.count("\n") <= MAX_FILE_LINES, "split it: a reader should hold a module in mind"
    assert not re.search(r"# *fmt: *(skip|off)", source), "let the formatter decide"
    if not path.relative_to(ROOT).as_posix().startswith(KERNELS):
        assert _long_functions(tree) == [], "split it: a function should fit on a screen"


def _long_functions(tree: ast.Module) -> list[str]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lines = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    return [f"{name}: {length} lines" for name, length in lines.items() if length > MAX_FUNCTION_LINES]


def test_every_package_is_installed() -> None:
    """The list in pyproject.toml is written by hand."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    real = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in MODULES}
    assert set(listed) == real


def test_every_invariant_names_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "invariants.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 40
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or (name and f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8"))
    ]
    assert missing == []
