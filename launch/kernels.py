"""Compile the kernels of the text stages ahead, in parallel, when an installation runs for the first time.

Contract: each group of kernels runs once on a short text, in a task of its own, which leaves the machine code in
numba's cache (twofold/compiled.py). Otherwise all workers would compile the same kernels, one stage after the other.
What is missed here is compiled on first use, so nothing depends on it.
"""

from __future__ import annotations

import os
from pathlib import Path

from twofold.root import ROOT

_TEXT = (
    "The harbour lies quiet, and the boats have not left yet. 항구는 조용하고 배는 아직 떠나지 않았다. (3 + 4 = 7)\n"
    * 3
)


def are_compiled() -> bool:
    """Whether an earlier run left compiled kernels; True where that cannot be told."""
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or ROOT / "data_pipeline" / "features" / "__pycache__")
    return any(folder.rglob("counts._count_documents*.nbi")) or not os.access(folder.parent, os.W_OK)


def compile_kernels(rank: int, world_size: int) -> None:
    """A task (twofold/tasks.py): compile the group `rank`."""
    GROUPS[rank]()


def _features() -> None:
    from configs.data_schema import NearDuplicates
    from data_pipeline.stages.score import attributes

    attributes(_TEXT, "prose", NearDuplicates(), {})


def _overlaps() -> None:
    from data_pipeline.features import overlap

    index = overlap.index_of(*overlap.fold([_TEXT]), 50, True)
    overlap.every([_TEXT], index)


def _duplicates() -> None:
    import numpy as np

    from data_pipeline.decisions.duplicates import CANDIDATES, settle
    from data_pipeline.features import minhash
    from data_pipeline.stages.connected_components import Sets
    from data_pipeline.stages.dedup import PAIRS

    sets = Sets(2)
    sets.join(np.array([[0, 1]]))
    sets.of(0, 2)
    sketches = np.ones((1, minhash.BINS), np.uint8)
    minhash.similarity(sketches, sketches)
    settle(CANDIDATES.empty_table(), PAIRS.empty_table())


def _training() -> None:
    import numpy as np

    from tokenizer.engine import Words, WordTable, count_words, pretokenize, train_bpe
    from tokenizer.patterns import PATTERNS

    text = np.frombuffer(_TEXT.encode(), np.uint8)
    ends = np.array([len(text)], np.int64)
    bounds = pretokenize(text, ends, PATTERNS["exaone3-code"], 256)
    table = WordTable.with_room(1_000, len(text))
    words, _ = count_words(Words(text, bounds, np.ones(len(bounds) - 1, np.int64)), table).sorted()
    known = [bytes([byte]) for byte in range(256)]
    train_bpe(words, known, 8)


def _encoding() -> None:
    import numpy as np

    from tokenizer.engine import Vocabulary, encode
    from tokenizer.patterns import PATTERNS
    from twofold.special_ids import EOS_ID

    text = np.frombuffer(_TEXT.encode(), np.uint8)
    merges = np.array([[ord("t"), ord("h"), 256]], np.uint32)
    vocabulary = Vocabulary.of(PATTERNS["exaone3-code"], np.arange(256, dtype=np.uint32), merges)
    for last in (EOS_ID, None):
        encode(text, np.array([len(text)], np.int64), vocabulary, last)


GROUPS = (_features, _overlaps, _encoding, _training, _duplicates)
"""The longest first."""
