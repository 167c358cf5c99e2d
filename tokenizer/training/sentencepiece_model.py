"""Pieces in rank order -> a sentencepiece model of them. The only module that imports sentencepiece.

Contract: the model encodes a word (cut by the tokenizer's pattern, its bytes as code points) into the ids of
tokenizer.json. It normalises nothing and adds nothing. sentencepiece merges the pair whose piece has the highest score,
so scores are ranks. Nothing is trained here.

sentencepiece knows neither the pattern nor the alphabet of bytes, so raw text gets other ids from it. The file is
therefore not called tokenizer.model, which llama.cpp and transformers would take for the tokenizer of a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizer.patterns import CODE_POINT_OF_BYTE
from twofold.special_ids import UNK_ID

FILE = "pieces.model"


def model_of(specials: Sequence[str], pieces: Sequence[str]) -> bytes:
    """The serialised model; ids are specials, bytes, pieces."""
    from sentencepiece import sentencepiece_model_pb2  # takes 40 ms

    schema: Any = sentencepiece_model_pb2
    proto = schema.ModelProto()
    for special in specials:
        added = proto.pieces.add(piece=special, score=0.0)
        added.type = added.CONTROL
    proto.pieces[UNK_ID].type = proto.pieces[UNK_ID].UNKNOWN
    for rank, piece in enumerate([*CODE_POINT_OF_BYTE, *pieces]):
        proto.pieces.add(piece=piece, score=-float(rank))
    training, normalising = proto.trainer_spec, proto.normalizer_spec
    training.model_type = training.BPE
    training.vocab_size = len(proto.pieces)
    training.unk_id, training.bos_id, training.eos_id, training.pad_id = UNK_ID, -1, -1, -1
    training.split_by_whitespace = training.split_by_unicode_script = training.split_by_number = False
    training.allow_whitespace_only_pieces = True
    normalising.name = "identity"
    normalising.add_dummy_prefix = normalising.remove_extra_whitespaces = False
    return bytes(proto.SerializeToString(deterministic=True))
