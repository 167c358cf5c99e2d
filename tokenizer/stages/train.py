"""Stage `tokenizer`: kept documents -> byte-level BPE.

Contract: `build` writes tokenizer.json (the artifact of record), a sentencepiece model of the same merges, and
token_bytes.npy. Superwords are learnt from a part of the sample, all of it up to 640 MB at the default
`tokenizer.max_words`. Deterministic: the same kept documents give the same bytes, on any machine and with any number of
workers. A vocabulary that the documents do not support is a `UserError` that says how large it may be. With
`tokenizer.allow_smaller` the ids that are left become reserved slots instead, so that the vocabulary and the model keep
the size that the recipe says.

Cost: benchmarks/results/tokenizer_train-*.json; 130 MB of text at 102,400 ids take about 15 s on 2 cores and 1 GB of
memory, without superwords.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq

from configs.checks import BYTE_TOKENS, NAMED_SPECIALS
from configs.schema import Recipe
from configs.schema import Tokenizer as Wish
from tokenizer.encoder import Encoder
from tokenizer.formats import special_tokens, write_tokenizer
from tokenizer.patterns import SUPERWORDS
from tokenizer.training import sentencepiece_model
from tokenizer.training.count_words import count_words, training_files
from tokenizer.training.learn import learn_superwords, learn_words
from tokenizer.training.morphemes import analyser, split_words, versions
from twofold.artifacts import Artifact
from twofold.errors import UserError, user_error
from twofold.files import atomic_path
from twofold.stage import From, Stage
from twofold.tasks import TaskRunner

CODE_VERSION: int = 6

_HELD_OUT_DOCUMENTS = 200
"""Validation documents of each source that compression is measured on."""


def config(recipe: Recipe) -> dict[str, Any]:
    """What decides this stage's output, apart from the documents."""
    return recipe.tokenizer.model_dump(mode="json")


def build(
    recipe: Recipe, kept: Annotated[Artifact, From("write")], out: Path, work: Path, runner: TaskRunner
) -> Mapping[str, Any]:
    """Train on the kept training documents; return the counts."""
    wish = recipe.tokenizer
    if not training_files(kept.path):
        raise _nothing_to_learn()
    if wish.morphemes == "mecab":
        analyser()  # refuse before anything is counted
    merges = wish.vocab_size - NAMED_SPECIALS - wish.reserved_ids - BYTE_TOKENS
    across_words = round(wish.superwords * merges)
    patterns = [wish.pattern, SUPERWORDS] if across_words else [wish.pattern]
    counts = count_words(kept.path, wish, patterns, work, runner)
    counted = counts[wish.pattern]
    if not counted.words:
        raise _nothing_to_learn()
    table = counted.path
    if wish.morphemes == "mecab":
        table = split_words(table, work / "morphemes", runner)
    pieces = learn_words(table, merges - across_words)
    if not pieces:
        raise _nothing_to_learn()
    found = learn_superwords(counts[SUPERWORDS].path, pieces, merges - len(pieces)) if across_words else []
    missing = merges - len(pieces) - len(found)
    if missing and not wish.allow_smaller:
        raise _too_large(wish, merges, merges - missing)
    reserved = wish.reserved_ids + missing
    with atomic_path(out / sentencepiece_model.FILE) as path:
        path.write_bytes(sentencepiece_model.model_of(special_tokens(reserved), [*pieces, *found]))
    write_tokenizer(out, [*pieces, *found], reserved, patterns[-1])
    return {
        "vocab_size": wish.vocab_size,
        "merges": len(pieces) + len(found),
        "superwords": len(found),
        "unused_ids": missing,
        "morphemes": versions() if wish.morphemes == "mecab" else {},
        "distinct_words": counted.distinct_words,
        "words": counted.words,
        "pruned_words": counted.pruned_words,
        "pruned_share": counted.pruned_count / counted.words,
        "sampled_bytes": counted.sampled_bytes,
        "held_out": held_out_compression(kept.path, Encoder(out)),
    }


STAGE = Stage(
    name="tokenizer",
    makes="tokenizer",
    code_version=CODE_VERSION,
    config=config,
    build=build,
    in_recipe=lambda recipe: recipe.tokenizes,
)


def held_out_compression(documents: Path, encoder: Encoder) -> dict[str, dict[str, float]]:
    """Language -> tokens per whitespace word and bytes per token, on each source's first validation documents."""
    totals: dict[str, Counter[str]] = {}
    for folder in sorted((documents / "documents" / "validation").glob("*")):
        for language, text in islice(_held_out(folder), _HELD_OUT_DOCUMENTS):
            sums = totals.setdefault(language, Counter())
            sums["tokens"] += len(encoder.encode([text])[0])
            sums["words"] += len(text.split())
            sums["bytes"] += len(text.encode("utf-8"))
    return {
        language: {
            "tokens_per_word": sums["tokens"] / max(1, sums["words"]),
            "bytes_per_token": sums["bytes"] / max(1, sums["tokens"]),
        }
        for language, sums in sorted(totals.items())
    }


def _held_out(folder: Path) -> Iterable[tuple[str, str]]:
    """(language, text) of a source's validation documents, read a few at a time."""
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(_HELD_OUT_DOCUMENTS, columns=["language", "text"]):
            yield from zip(batch["language"].to_pylist(), batch["text"].to_pylist(), strict=True)


def _nothing_to_learn() -> UserError:
    problem = "has no kept training text to learn from"
    hint = "loosen data.rules, add documents, or raise tokenizer.sample_bytes_per_source"
    return user_error("tokenizer", None, problem, hint)


def _too_large(wish: Wish, asked: int, supported: int) -> UserError:
    largest = wish.vocab_size - asked + supported
    problem = f"asks for {asked:,} merges, and the sampled documents support {supported:,}"
    hint = f"use tokenizer.vocab_size={largest} at most, add documents, or set tokenizer.allow_smaller=true"
    return user_error("tokenizer.vocab_size", wish.vocab_size, problem, hint)
