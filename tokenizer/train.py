"""Stage `tokenizer`: word counts -> byte-level BPE merges, by sentencepiece. The only module that imports it.

Contract: `build` writes tokenizer.json (the artefact of record), the sentencepiece model that it was
made from, and token_bytes.npy. Deterministic: the same kept documents give the same bytes, whatever the
machine or the number of workers. A vocabulary that the documents do not support is a `UserError` that
says how large a one they do.

sentencepiece sees distinct words with counts, bytes written as code points, and every rule of its own
switched off: what remains is exact greedy BPE (ties: the shorter piece, then code point order).
256 one-byte rows guarantee the alphabet; one-character words form no pair, so merges do not change.

Cost at 102,400 with 0.96 million distinct words (79 MB of text), 2 cores: 14 s, peak 1.1 GB.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import sentencepiece

from configs.checks import BYTE_TOKENS, NAMED_SPECIALS
from configs.errors import UserError, user_error
from configs.files import atomic_path
from configs.manifest import Artifact
from configs.schema import Recipe
from configs.schema import Tokenizer as Wish
from configs.tasks import TaskRunner
from tokenizer.convert import write_tokenizer
from tokenizer.counts import Word, count_words, read_words, training_files
from tokenizer.encode import Encoder
from tokenizer.patterns import CODE_POINT_OF_BYTE

CODE_VERSION: int = 2

_PIECE_BYTES = 64
"""Longest piece; longer ones are never worth their id."""
_THREADS = 8
"""Fixed, since the model notes it; merges do not depend on it."""
_RAREST = 65_536
"""A one-byte row counts 1/65,536 of all bytes: enough for float32 coverage, too little to matter."""
_HELD_OUT_DOCUMENTS = 200
"""Validation documents of each source that compression is measured on."""


def config(recipe: Recipe) -> dict[str, Any]:
    """What decides this stage's output beside the documents."""
    return recipe.tokenizer.model_dump(mode="json")


def build(recipe: Recipe, kept: Artifact, out: Path, work: Path, runner: TaskRunner) -> Mapping[str, Any]:
    """Train on the kept training documents; return the counts."""
    wish = recipe.tokenizer
    if not training_files(kept.path):
        raise _nothing_to_learn()
    counted = count_words(kept.path, wish.pattern, wish.sample_bytes_per_source, work, runner)
    distinct, words = _totals(read_words(counted.path))
    merges = wish.vocab_size - NAMED_SPECIALS - wish.reserved_ids - BYTE_TOKENS
    model = train_model(counted.path, merges)
    pieces = supported_pieces(model, counted.path)
    if not pieces:
        raise _nothing_to_learn()
    if len(pieces) < merges:
        raise _too_large(wish, merges, len(pieces))
    with atomic_path(out / "tokenizer.model") as path:
        path.write_bytes(model)
    write_tokenizer(out, pieces, wish.reserved_ids, wish.pattern)
    return {
        "vocab_size": wish.vocab_size,
        "merges": len(pieces),
        "distinct_words": distinct,
        "words": words,
        "sampled_bytes": counted.sampled_bytes,
        "held_out": held_out_compression(kept.path, Encoder(out)),
    }


def train_model(table: Path, merges: int) -> bytes:
    """The sentencepiece model with the first `merges` merges of a table of words, or with all there are."""
    size = sum(count * len(word) for word, count in read_words(table))
    alphabet = ((byte, size // _RAREST + 1) for byte in CODE_POINT_OF_BYTE)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(f"{word}\t{count}" for word, count in chain(read_words(table), alphabet)),
        input_format="tsv", model_writer=model, model_type="bpe", num_threads=_THREADS, minloglevel=2,
        vocab_size=1 + BYTE_TOKENS + merges, hard_vocab_limit=False, unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
        split_by_whitespace=False, split_by_unicode_script=False, split_by_number=False, split_digits=False,
        allow_whitespace_only_pieces=True, character_coverage=1.0, byte_fallback=False,
        max_sentence_length=1 << 20, max_sentencepiece_length=_PIECE_BYTES,
    )  # fmt: skip
    return model.getvalue()


def supported_pieces(model: bytes, table: Path) -> list[str]:
    """The pieces that `model` merged, in rank order, less those that the words of `table` do not support.

    Once every word is one piece, sentencepiece goes on with pairs that no longer occur. What it learnt
    last before that is still a part of some word, and what it learnt after never is.
    """
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(number) for number in range(1, processor.get_piece_size())]
    assert {piece for piece in pieces if len(piece) == 1} == set(CODE_POINT_OF_BYTE), "sentencepiece dropped bytes"
    merged = [piece for piece in pieces if len(piece) > 1]
    if not merged or any(
        merged[-1] in word and merged[-1] in processor.encode(word, out_type=str) for word, _ in read_words(table)
    ):
        return merged
    parts = {part for word, _ in read_words(table) for part in processor.encode(word, out_type=str)}
    return merged[: 1 + max((rank for rank, piece in enumerate(merged) if piece in parts), default=-1)]


def held_out_compression(documents: Path, encoder: Encoder) -> dict[str, dict[str, float]]:
    """Language -> tokens a whitespace word and bytes a token, on each source's first validation documents."""
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


def _totals(words: Iterable[Word]) -> tuple[int, int]:
    """(distinct words, words in all); `UserError` where there are none."""
    distinct = total = 0
    for _, count in words:
        distinct, total = distinct + 1, total + count
    if not distinct:
        raise _nothing_to_learn()
    return distinct, total


def _nothing_to_learn() -> UserError:
    return user_error(
        "tokenizer", None, "has no kept training text to learn from",
        "loosen data.rules, add documents, or raise tokenizer.sample_bytes_per_source",
    )  # fmt: skip


def _too_large(wish: Wish, asked: int, supported: int) -> UserError:
    largest = wish.vocab_size - asked + supported
    return user_error(
        "tokenizer.vocab_size", wish.vocab_size,
        f"asks for {asked:,} merges, and the sampled documents support {supported:,}",
        f"use tokenizer.vocab_size={largest} at most, or add documents",
    )  # fmt: skip
