"""Shards, byte table and finished runs that several of the trainer's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import world


@pytest.fixture(scope="session")
def shards_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.write_token_bytes(tmp_path_factory.mktemp("tokenizer"))
