"""From a step back to the documents that were in its batch.

Contract: pure. The data order says which sequences a step holds, and the shards' side index which documents are in
them. Reads no tokens; costs a search in a memory map per sequence, and the side index of the shards that the batch
touches.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.data.order import Order
from pretrain.data.plan import Step
from tokenizer.shards import Index, open_document_ends, read_documents


@dataclass(frozen=True)
class Span:
    """A document's tokens in one sequence of a batch."""

    row: int
    """In the global batch."""
    source: str
    epoch: int
    sequence: int
    """In its source, at the phase's sequence length."""
    shard: str
    document: int
    """The document's number in the shard."""
    id: str
    """As in the filter decisions; see `twofold explain RECIPE ID`."""
    language: str
    first: int
    """First token in the sequence, 0 .. T-1; the sequence's token T is only a target."""
    end: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def documents(index: Index, order: Order, step: Step) -> list[Span]:
    """The documents of a step's global batch, sequence by sequence, in the batch's order."""
    samples = order.samples(step.phase, step.first_sample, step.sequences)
    spans: list[Span] = []
    places = zip(samples.source.tolist(), samples.epoch.tolist(), samples.sequence.tolist(), strict=True)
    for row, (source, epoch, sequence) in enumerate(places):
        name = order.sources[source]
        first = sequence * step.sequence_length
        for shard, number, begin, end in _spans(index, name, first, first + step.sequence_length):
            columns = _documents(index.folder / shard)
            spans.append(
                Span(
                    row,
                    name,
                    epoch,
                    sequence,
                    shard,
                    number,
                    columns["id"][number],
                    columns["language"][number],
                    begin - first,
                    end - first,
                )
            )
    return spans


def _spans(index: Index, source: str, first: int, end: int) -> Iterator[tuple[str, int, int, int]]:
    """(shard, document, first and end token in the source's stream) of the tokens first .. end-1."""
    shards = index.splits["train"][source].shards
    starts = [0, *accumulate(shard.tokens for shard in shards)]
    for shard, start in zip(shards, starts, strict=False):
        low, high = max(first, start), min(end, start + shard.tokens)
        if low >= high:
            continue
        ends = open_document_ends(index.folder / shard.path)
        number = int(np.searchsorted(ends, np.uint64(low - start), side="right"))
        while low < high:
            stop = min(high, start + int(ends[number]))
            yield shard.path, number, low, stop
            low, number = stop, number + 1


@functools.lru_cache(maxsize=8)
def _documents(path: Path) -> dict[str, list[Any]]:
    return read_documents(path)
