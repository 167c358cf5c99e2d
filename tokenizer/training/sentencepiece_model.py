"""Pieces in rank order -> a sentencepiece model of them. The only module that imports sentencepiece.

Contract: the model encodes a word (cut by the tokenizer's pattern, its bytes as code points) into the pieces that
tokenizer.json gives. It normalises nothing and adds nothing; ids are unk 0, then the merged pieces by rank, then the
bytes. sentencepiece merges the pair whose piece has the highest score, so scores are ranks. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizer.patterns import CODE_POINT_OF_BYTE


def model_of(pieces: Sequence[str]) -> bytes:
    """The serialised model."""
    from sentencepiece import sentencepiece_model_pb2  # takes 40 ms

    schema: Any = sentencepiece_model_pb2
    proto = schema.ModelProto()
    unknown = proto.pieces.add(piece="<unk>", score=0.0)
    unknown.type = unknown.UNKNOWN
    for rank, piece in enumerate([*pieces, *CODE_POINT_OF_BYTE]):
        proto.pieces.add(piece=piece, score=-float(rank))
    training, normalising = proto.trainer_spec, proto.normalizer_spec
    training.model_type = training.BPE
    training.vocab_size = len(proto.pieces)
    training.unk_id, training.bos_id, training.eos_id, training.pad_id = 0, -1, -1, -1
    training.split_by_whitespace = training.split_by_unicode_script = training.split_by_number = False
    training.allow_whitespace_only_pieces = True
    normalising.name = "identity"
    normalising.add_dummy_prefix = normalising.remove_extra_whitespaces = False
    return bytes(proto.SerializeToString(deterministic=True))
