"""Readers against arbitrary and damaged files: nothing raises, everything is a document or a reject."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import fuzz_readers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = fuzz_readers.seeds()
NOISE = st.binary(max_size=60)


@pytest.fixture(scope="session")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "input"


@pytest.mark.parametrize(("form", "data"), SEEDS)
def test_the_seeds_are_valid(path, form, data):
    fuzz_readers.check(path, form, data)


@pytest.mark.parametrize("form", fuzz_readers.FORMS)
@given(data=st.binary(max_size=400), variant=st.integers(0, 3))
@settings(max_examples=60)
def test_no_bytes_raise(path, form, data, variant):
    fuzz_readers.check(path, form, data, variant)


@pytest.mark.parametrize("number", range(len(SEEDS)))
@given(place=st.integers(0, 2_000), removed=st.integers(0, 60), noise=NOISE, variant=st.integers(0, 3))
@settings(max_examples=60)
def test_no_damage_to_a_valid_file_raises(path, number, place, removed, noise, variant):
    form, data = SEEDS[number]
    place %= len(data)
    fuzz_readers.check(path, form, data[:place] + noise + data[place + removed :], variant)


@pytest.mark.parametrize("number", range(len(SEEDS)))
@given(cut=st.integers(0, 2_000), tail=NOISE)
@settings(max_examples=40)
def test_no_cut_raises(path, number, cut, tail):
    form, data = SEEDS[number]
    fuzz_readers.check(path, form, data[: cut % len(data)] + tail)


@pytest.mark.parametrize("form", fuzz_readers.FORMS)
@pytest.mark.parametrize("seed", SEEDS, ids=[f"{form}-{number}" for number, (form, _) in enumerate(SEEDS)])
def test_a_file_of_another_format_raises_nothing(path, form, seed):
    fuzz_readers.check(path, form, seed[1])


@pytest.mark.fuzz
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed (pip install atheris)"
)
def test_coverage_guided_fuzzing_finds_nothing_in_ten_seconds(tmp_path):
    command = [sys.executable, fuzz_readers.__file__, "10", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert int(re.findall(r"Done (\d+) runs", done.stderr)[0]) > 100
