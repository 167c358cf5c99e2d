"""Stage `tokenizer`: word counts -> byte-level BPE merges, by sentencepiece. The only module that imports it.

Contract: `build` writes tokenizer.json (the artefact of record), the sentencepiece model that it was
made from, and token_bytes.npy. Deterministic: the same kept documents give the same bytes, whatever the
number of threads. A vocabulary that the documents do not support is a `UserError` that says how many
merges they do.

sentencepiece sees a table of distinct words with counts, bytes written as code points, and every rule of
its own switched off: what remains is exact greedy BPE (ties: the shorter piece, then code point order).
256 one-byte rows guarantee the alphabet; one-character words form no pair, so merges do not change.
Measured growth: about 0.9 kB of memory a distinct word.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from configs.checks import BYTE_TOKENS, NAMED_SPECIALS
from configs.errors import user_error
from configs.files import atomic_path
from configs.manifest import Artifact
from configs.schema import Recipe
from configs.tasks import TaskRunner
from tokenizer.convert import write_tokenizer
from tokenizer.counts import Counted, count_words, read_words, training_files
from tokenizer.encode import Encoder
from tokenizer.patterns import byte_to_code_point, map_bytes

CODE_VERSION: int = 1

_PIECE_BYTES = 64
"""Longest piece; longer ones are never worth their id."""
_HELD_OUT_DOCUMENTS = 200
"""Validation documents of each source that compression is measured on."""
_RAREST = 65_536
"""A one-byte row counts 1/65,536 of all bytes: enough for float32 coverage, too little to matter."""


def config(recipe: Recipe) -> dict[str, Any]:
    """What decides this stage's output beside the documents."""
    return recipe.tokenizer.model_dump(mode="json")


def build(recipe: Recipe, decided: Artifact, out: Path, work: Path, runner: TaskRunner) -> Mapping[str, Any]:
    """Train on the kept training documents; return the counts."""
    wish = recipe.tokenizer
    if not training_files(decided.path):
        raise _no_documents()
    counted = count_words(decided.path, wish.pattern, wish.sample_bytes_per_source, work, runner)
    distinct, total = _write_sentences(counted, work / "sentences.tsv")
    merges = wish.vocab_size - BYTE_TOKENS - NAMED_SPECIALS - wish.reserved_ids
    pieces = train_pieces(work / "sentences.tsv", merges, work / "bpe")
    with atomic_path(out / "tokenizer.model") as path:
        path.write_bytes(_without_machine((work / "bpe.model").read_bytes()))
    write_tokenizer(out, pieces, wish.reserved_ids, wish.pattern)
    return {
        "vocab_size": wish.vocab_size,
        "merges": len(pieces),
        "distinct_words": distinct,
        "words": total,
        "sampled_bytes": counted.sampled_bytes,
        "held_out": held_out_compression(decided.path, Encoder(out)),
    }


def train_pieces(sentences: Path, merges: int, prefix: Path) -> list[str]:
    """Exactly `merges` pieces in rank order, as mapped code points; `UserError` if there are fewer."""
    sentencepiece.SentencePieceTrainer.train(
        input=str(sentences), input_format="tsv", model_prefix=str(prefix), model_type="bpe",
        vocab_size=1 + merges + BYTE_TOKENS, hard_vocab_limit=False, unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
        split_by_whitespace=False, split_by_unicode_script=False, split_by_number=False, split_digits=False,
        allow_whitespace_only_pieces=True, character_coverage=1.0, byte_fallback=False,
        max_sentence_length=1 << 20, max_sentencepiece_length=_PIECE_BYTES,
        num_threads=min(16, os.cpu_count() or 1), minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    pieces = [model.id_to_piece(number) for number in range(1, model.get_piece_size())]
    alphabet = [piece for piece in pieces if len(piece) == 1]
    assert set(alphabet) == set(byte_to_code_point()), "sentencepiece dropped bytes"
    learnt = [piece for piece in pieces if len(piece) > 1]
    supported = _supported_merges(sentences, learnt, model)
    if supported < merges:
        raise user_error(
            "tokenizer.vocab_size", None,
            f"asks for {merges:,} merges, and the kept documents support {supported:,}",
            f"lower tokenizer.vocab_size by {merges - supported:,}, or give it more text",
        )  # fmt: skip
    return learnt


def _supported_merges(
    sentences: Path, learnt: Sequence[str], model: sentencepiece.SentencePieceProcessor
) -> int:
    """How many of the learnt pieces were merged from a pair that occurs.

    sentencepiece goes on with pairs that no longer occur once every word is one piece. As long as one
    word is not, no such piece was needed, which the first words tell.
    """
    ranks = {piece: rank for rank, piece in enumerate(learnt)}
    highest = -1
    with sentences.open(encoding="utf-8") as stream:
        for line in stream:
            word = line.rsplit("\t", 1)[0]
            if 1 < len(word) <= _PIECE_BYTES and word not in ranks:
                return len(learnt)
            pieces = [word] if len(word) <= _PIECE_BYTES else model.encode(word, out_type=str)
            highest = max(highest, *(ranks.get(piece, -1) for piece in pieces))
    return highest + 1


def _without_machine(model: bytes) -> bytes:
    """The model less what its trainer noted of this machine: paths and threads."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    for field in ("input", "model_prefix", "num_threads"):
        proto.trainer_spec.ClearField(field)
    written: bytes = proto.SerializeToString(deterministic=True)
    return written


def held_out_compression(documents: Path, encoder: Encoder) -> dict[str, dict[str, float]]:
    """Language -> tokens a whitespace word and bytes a token, on the first validation documents."""
    totals: dict[str, list[int]] = {}
    for path in sorted((documents / "documents" / "validation").glob("*/*.parquet")):
        rows = pq.read_table(path, columns=["language", "text"]).slice(0, _HELD_OUT_DOCUMENTS).to_pydict()
        for language, text, ids in zip(rows["language"], rows["text"], encoder.encode(rows["text"]), strict=True):
            sums = totals.setdefault(language, [0, 0, 0])
            for position, amount in enumerate((len(ids), len(text.split()), len(text.encode("utf-8")))):
                sums[position] += amount
    return {
        language: {"tokens_per_word": tokens / max(1, words), "bytes_per_token": size / max(1, tokens)}
        for language, (tokens, words, size) in sorted(totals.items())
    }


def _write_sentences(counted: Counted, target: Path) -> tuple[int, int]:
    """The words in sentencepiece's TSV, bytes mapped; (distinct words, words in all)."""
    distinct = total = size = 0
    with atomic_path(target) as path, path.open("w", encoding="utf-8") as stream:
        for word, count in read_words(counted.path):
            mapped = map_bytes(word)
            stream.write(f"{mapped}\t{count}\n")
            distinct, total, size = distinct + 1, total + count, size + count * len(mapped)
        if not distinct:
            raise _no_documents()
        stream.writelines(f"{byte}\t{size // _RAREST + 1}\n" for byte in byte_to_code_point())
    return distinct, total


def _no_documents() -> Exception:
    return user_error(
        "tokenizer", None, "has no kept training document to learn from", "loosen data.rules, or add documents"
    )
