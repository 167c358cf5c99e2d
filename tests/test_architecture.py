"""One module owns each heavy dependency; no module outgrows its reader; every module says its contract."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("twofold", "configs", "data_pipeline", "tokenizer", "pretrain", "launch")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
OWNERS = {
    "deepspeed": "pretrain/engine/deepspeed_adapter.py",
    "wandb": "pretrain/hooks/metrics.py",
    "sentencepiece": "tokenizer/training/sentencepiece_model.py",
    "mecab": "tokenizer/training/morphemes.py",
    "fasttext": "data_pipeline/classification/fasttext_model.py",
    "resiliparse": "data_pipeline/readers/html.py",
    "fastwarc": "data_pipeline/readers/warc.py",
    "trafilatura": "data_pipeline/readers/html.py",
    "fsspec": "data_pipeline/readers/storage.py",
    "py3langid": "data_pipeline/features/language.py",
    "datatrove": "launch/executors/",
    "matplotlib": "launch/reports/plots.py",
    "jinja2": "launch/reports/__init__.py",
    "numba": "twofold/compiled.py",
    "ray": "launch/executors/ray.py",
    "rensa": "data_pipeline/features/minhash.py",
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
    assert ast.get_docstring(ast.parse(source)), "begin with a docstring that states the contract"
    assert source.count("\n") <= 420, "split it: a reader should hold a module in mind"


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
