"""Compiled code is cached, renewed when a module that it uses changes, and does without a cache."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import pytest

from twofold.compiled import digest, entry_point

ADDS = """
from twofold.compiled import entry_point
import value_of_it
from value_of_it import VALUE

def add(x):
    return x + VALUE

def added(named):
    return entry_point(add, *([value_of_it] if named else []))
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`load(value, named)`: compile a function whose constant lies in another module, named to `entry_point` or not."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "adds.py").write_text(ADDS, encoding="utf-8")

    def imported(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    def loaded(value: int, named: bool) -> Any:
        (tmp_path / "value_of_it.py").write_text(f"VALUE = {value} {'#' * value}", encoding="utf-8")
        imported("value_of_it")
        return imported("adds").added(named)

    return loaded


def test_a_change_of_a_named_module_renews_the_cache(load):
    """numba checks the entry point's file only: a module that is not named leaves a stale cache."""
    first = load(1, named=True)
    assert first(10) == 11
    renewed = load(2, named=True)
    assert renewed(10) == 12
    again = load(2, named=True)
    assert again(10) == 12
    assert again.stats.cache_hits.total() == 1


def test_a_module_that_is_not_named_leaves_a_stale_cache(load):
    assert load(1, named=False)(10) == 11
    stale = load(2, named=False)
    assert stale(10) == 11
    assert stale.stats.cache_hits.total() == 1


def test_without_a_folder_for_the_cache_each_process_compiles(load, monkeypatch):
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    add = load(1, named=True)
    assert add(10) == 11
    assert add.stats.cache_path is None


def test_an_entry_point_keeps_its_code():
    def plus_one(x):
        return x + 1

    assert entry_point(plus_one).py_func is plus_one


def test_the_digest_names_contents(tmp_path: Path):
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("x", encoding="utf-8")
    second.write_text("y", encoding="utf-8")
    before = digest(str(first), str(second))
    second.write_text("z", encoding="utf-8")
    assert digest(str(first), str(second)) != before
