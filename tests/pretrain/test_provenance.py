"""From a step back to its documents: against a walk over every token."""

from __future__ import annotations

from pathlib import Path

import pytest
import world

from pretrain.data import provenance
from pretrain.data.batches import Batches
from pretrain.data.order import Order
from pretrain.data.plan import Plan
from tokenizer import shards


@pytest.mark.parametrize("number", [0, 5, 9])
def test_every_token_of_a_batch_is_in_the_document_that_the_trace_names(shards_dir: Path, number: int) -> None:
    recipe = world.recipe()
    index = shards.read_index(shards_dir)
    order = Order(recipe.seed, recipe.phases, index.tokens("train"))
    step = Plan(recipe).at(number)
    batch = Batches(index, order).read(step)
    spans = provenance.documents(index, order, step)
    covered = {row: [] for row in range(step.sequences)}
    for span in spans:
        ends = [0, *shards.open_document_ends(shards_dir / span.shard).tolist()]
        document = shards.open_tokens(shards_dir / span.shard)[ends[span.document] : ends[span.document + 1]].tolist()
        piece = batch[span.row, span.first : span.end].tolist()
        assert any(document[at : at + len(piece)] == piece for at in range(len(document)))
        assert shards.read_documents(shards_dir / span.shard)["id"][span.document] == span.id
        covered[span.row] += range(span.first, span.end)
    assert all(tokens == list(range(step.sequence_length)) for tokens in covered.values())
    assert {span.source for span in spans} == {
        order.sources[s] for s in order.samples(step.phase, step.first_sample, step.sequences).source
    }
