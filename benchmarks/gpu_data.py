"""Synthetic token shards in the house's format, for the GPU benchmark: real order, real reading. No torch.

Contract: `write` makes shards of every source of the shipped 7.8 B recipe's first phase, documents of
log-normal length (median 500 tokens) ended by eos, from a fixed seed, and a byte table. 32 MB.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.gpu_cases import SHIPPED, Case
from configs.recipe import load_recipe
from tokenizer import shards
from twofold.special_ids import EOS_ID

FIRST_ID = 5
MEDIAN_DOCUMENT_TOKENS = 500


def write(case: Case, folder: Path) -> tuple[Path, Path]:
    """(shards, tokenizer) below `folder`, made once."""
    data, tokenizer = folder / "shards", folder / "tokenizer"
    if (data / shards.INDEX_FILE).exists():
        return data, tokenizer
    sources = list(load_recipe(SHIPPED).phases[0].mixture)
    tokens = 20_000 if case.tiny else 1_000_000
    splits = {
        "train": {name: _source(data, "train", name, tokens, case, [1, n]) for n, name in enumerate(sources)},
        "validation": {sources[0]: _source(data, "validation", sources[0], 2 * case.sequence_length, case, [2])},
    }
    tokenizer.mkdir(parents=True, exist_ok=True)
    np.save(tokenizer / "token_bytes.npy", np.ones(case.vocab_size, np.int32))
    shards.write_index(data, case.vocab_size, "0" * 64, splits)
    return data, tokenizer


def _source(folder: Path, split: str, name: str, tokens: int, case: Case, seed: list[int]) -> shards.SourceShards:
    drawn = np.random.default_rng(seed)
    ids = drawn.integers(FIRST_ID, case.vocab_size, tokens, dtype=np.uint32)
    median = MEDIAN_DOCUMENT_TOKENS // (20 if case.tiny else 1)
    lengths = 2 + drawn.lognormal(np.log(median), 1.0, tokens // median + 100).astype(np.int64)
    ends = np.cumsum(lengths)
    ends = np.append(ends[ends < tokens], tokens)
    ids[ends - 1] = EOS_ID
    rows = {"id": [str(n) for n in range(len(ends))], "source": [name] * len(ends), "language": ["en"] * len(ends)}
    with shards.ShardWriter(folder, f"{split}/{name}/00000.ds") as writer:
        writer.add(ids, ends, {**rows, "bytes": np.diff(ends, prepend=0).tolist()})
    sizes = {"documents": len(ends), "tokens": tokens, "bytes": tokens}
    return shards.SourceShards(domain="general", **sizes, shards=(writer.shard(),))
