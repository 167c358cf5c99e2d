"""Words with counts -> the merges of byte-level BPE, by sentencepiece. The only module that imports it.

Contract: exact greedy BPE, ties to the shorter piece, then to code point order; the same table gives the same
merges and the same model, on any machine. sentencepiece sees distinct words with counts, bytes written as
code points, and every rule of its own switched off. Rows of one symbol each guarantee the alphabet; they
form no pair, so merges do not change. A piece has at most 64 bytes.

Superwords (SuperBPE, Liu et al. 2025): the last merges are learnt from stretches of several words, which the
first merges have already been applied to: what remains of a stretch is written as one code point a piece,
and trained in the same way. Since every border of a stretch is a border of words, encoding a stretch by all
merges in order of rank gives what training saw. A superword has at most 16 pieces.

Cost at 102,400 with 0.96 million distinct words (79 MB of text), 2 cores: 14 s, peak 1.1 GB.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import sentencepiece
from tokenizers import Tokenizer as Engine
from tokenizers import models

from configs.checks import BYTE_TOKENS
from tokenizer.convert import merges_of
from tokenizer.patterns import CODE_POINT_OF_BYTE
from tokenizer.word_files import batch_of, batches_of, read_batch, read_lines, read_words, record_batch, write_batches

_PIECE_BYTES = 64
"""Longest piece; longer ones are never worth their id."""
_SUPERWORD_PIECES = 16
_THREADS = 8
"""Fixed, since the model notes it; merges do not depend on it."""
_RAREST = 65_536
"""A row of one symbol counts 1/65,536 of all bytes: enough for float32 coverage, too little to matter."""
_FIRST_SYMBOL = 0x10000
_CHUNKS = 1 << 14
"""Stretches that are encoded at once."""


def train_model(table: Path, merges: int) -> bytes:
    """The sentencepiece model with the first `merges` merges of a file of words, or with all there are."""
    batches = [read_batch(table, number) for number in range(batches_of(table))]
    size = sum(int(np.dot(np.diff(batch.bounds), batch.counts)) for batch in batches)
    return _trained(read_lines(table), CODE_POINT_OF_BYTE, size, merges, _PIECE_BYTES)


def supported_pieces(model: bytes, table: Path) -> list[str]:
    """The pieces that `model` merged, in rank order, less those that the words of `table` do not support."""
    return _supported(model, table, CODE_POINT_OF_BYTE)


def superwords(table: Path, pieces: Sequence[str], merges: int, work: Path) -> list[str]:
    """The next `merges` pieces after `pieces`, or all there are, learnt from a file of stretches of words."""
    alphabet = [*CODE_POINT_OF_BYTE, *pieces]
    symbols = {piece: chr(_FIRST_SYMBOL + number) for number, piece in enumerate(alphabet)}
    rewritten = work / "stretches.arrow"
    write_batches(rewritten, _rewritten(table, pieces, symbols))
    size = sum(count * len(stretch) for stretch, count in _symbol_words(rewritten))
    rows = (f"{stretch}\t{count}" for stretch, count in _symbol_words(rewritten))
    model = _trained(rows, list(symbols.values()), size, merges, _SUPERWORD_PIECES)
    found = _supported(model, rewritten, list(symbols.values()))
    return ["".join(alphabet[ord(symbol) - _FIRST_SYMBOL] for symbol in superword) for superword in found]


def with_pieces(model: bytes, pieces: Sequence[str], further: Sequence[str]) -> bytes:
    """The model with exactly these merged pieces: those of `pieces`, which it has, and further ones after them."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]
    unknown, *others = list(proto.pieces)
    letters = [piece for piece in others if len(piece.piece) == 1]
    kept = [piece for piece in others if len(piece.piece) > 1][: len(pieces)]
    assert [piece.piece for piece in kept] == list(pieces)
    new = [proto.SentencePiece(piece=piece) for piece in further]
    del proto.pieces[:]
    proto.pieces.extend([unknown, *kept, *new, *letters])
    for rank, piece in enumerate(proto.pieces[1:]):
        piece.score = -float(rank)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    return bytes(proto.SerializeToString(deterministic=True))


def _trained(rows: Iterable[str], alphabet: Sequence[str], size: int, merges: int, longest: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=chain(rows, (f"{symbol}\t{size // _RAREST + 1}" for symbol in alphabet)),
        input_format="tsv", model_writer=model, model_type="bpe", num_threads=_THREADS, minloglevel=2,
        vocab_size=1 + len(alphabet) + merges, hard_vocab_limit=False, unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
        split_by_whitespace=False, split_by_unicode_script=False, split_by_number=False, split_digits=False,
        allow_whitespace_only_pieces=True, character_coverage=1.0, byte_fallback=False,
        max_sentence_length=1 << 20, max_sentencepiece_length=longest,
    )  # fmt: skip
    return model.getvalue()


def _supported(model: bytes, table: Path, alphabet: Sequence[str]) -> list[str]:
    """Once every word is one piece, sentencepiece goes on with pairs that no longer occur. What it learnt
    last before that is still a part of some word, and what it learnt after never is.
    """
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(number) for number in range(1, processor.get_piece_size())]
    assert {piece for piece in pieces if len(piece) == 1} == set(alphabet), "sentencepiece dropped symbols"
    words = read_words if len(alphabet) == BYTE_TOKENS else _symbol_words
    merged = [piece for piece in pieces if len(piece) > 1]
    if not merged or any(
        merged[-1] in word and merged[-1] in processor.encode(word, out_type=str) for word, _ in words(table)
    ):
        return merged
    parts = {part for word, _ in words(table) for part in processor.encode(word, out_type=str)}
    return merged[: 1 + max((rank for rank, piece in enumerate(merged) if piece in parts), default=-1)]


def _rewritten(table: Path, pieces: Sequence[str], symbols: dict[str, str]) -> Iterator[pa.RecordBatch]:
    """Batches of the stretches, one code point for each of the pieces that they are encoded in."""
    vocabulary = {piece: number for number, piece in enumerate(symbols)}
    engine = Engine(models.BPE(vocab=vocabulary, merges=merges_of(pieces)))
    names = list(symbols.values())
    rows = read_words(table)
    while chunk := list(islice(rows, _CHUNKS)):
        encoded = engine.encode_batch_fast([stretch for stretch, _ in chunk], add_special_tokens=False)
        yield record_batch(
            batch_of(
                ("".join(names[number] for number in row.ids).encode(), count)
                for row, (_, count) in zip(encoded, chunk, strict=True)
            )
        )


def _symbol_words(table: Path) -> Iterator[tuple[str, int]]:
    """(stretch as symbols, count) of what `_rewritten` wrote."""
    for number in range(batches_of(table)):
        batch = read_batch(table, number)
        data, bounds = batch.data.tobytes(), batch.bounds.tolist()
        for place, count in enumerate(batch.counts.tolist()):
            yield data[bounds[place] : bounds[place + 1]].decode(), count
