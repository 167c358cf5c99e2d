"""Compiled code is cached, renewed when any of its sources changes, and does without a cache."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import pytest

from twofold.compiled import digest, entry_point

MODULE = """
from twofold.compiled import entry_point
from value_of_it import VALUE

def make(sources):
    def add(x):
        assert sources
        return x + VALUE
    return entry_point(add)
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], Any]:
    """`load(sources, value)`: compile a function whose constant lies in another file."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "adds.py").write_text(MODULE, encoding="utf-8")

    def loaded(sources: str, value: int) -> Any:
        monkeypatch.setitem(sys.modules, "value_of_it", SimpleNamespace(VALUE=value))
        spec = importlib.util.spec_from_file_location("adds", tmp_path / "adds.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "adds", module)
        spec.loader.exec_module(module)
        return module.make(sources)

    return loaded


def test_a_change_of_any_source_renews_the_cache(load):
    """numba looks at the entry point's file only: without the digest the second answer would be the first."""
    first = load("one", 1)
    assert first(10) == 11
    stale = load("one", 2)
    assert stale(10) == 11
    assert stale.stats.cache_hits.total() == 1
    renewed = load("two", 2)
    assert renewed(10) == 12


def test_without_a_folder_for_the_cache_each_process_compiles(load, monkeypatch):
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    add = load("one", 1)
    assert add(10) == 11
    assert add.stats.cache_path is None


def test_an_entry_point_must_close_over_its_sources():
    with pytest.raises(AssertionError, match="closure"):
        entry_point(lambda x: x)


def test_the_digest_names_contents(tmp_path: Path):
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("x", encoding="utf-8")
    second.write_text("y", encoding="utf-8")
    before = digest(str(first), str(second))
    second.write_text("z", encoding="utf-8")
    assert digest(str(first), str(second)) != before
