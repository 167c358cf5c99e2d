"""Attention within documents: equal to every document on its own, in outputs and gradients."""

from __future__ import annotations

import pytest
import torch
import world
from hypothesis import given
from hypothesis import strategies as st

from pretrain.model.attention import document_mask
from pretrain.model.decoder import Decoder, initial_weights
from twofold.special_ids import EOS_ID

CFG = world.recipe().model
rows = st.lists(st.sampled_from([EOS_ID, 20, 21, 22]), min_size=1, max_size=24)


def _model() -> Decoder:
    model = Decoder(CFG, world.VOCAB)
    model.load_state_dict(dict(initial_weights(CFG, world.VOCAB, 3)))
    return model


@given(rows)
def test_the_mask_is_what_a_walk_over_the_tokens_says(tokens: list[int]) -> None:
    mask = document_mask(torch.tensor([tokens]))[0, 0].tolist()
    document, documents = 0, []
    for token in tokens:
        documents.append(document)
        document += token == EOS_ID
    for query in range(len(tokens)):
        for key in range(len(tokens)):
            assert mask[query][key] == (key <= query and documents[key] == documents[query])


def test_outputs_and_gradients_equal_those_of_each_document_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = (7, 1, 12, 5, 9)
    documents = [torch.randint(12, world.VOCAB, (n,), generator=generator) for n in lengths]
    for document in documents:
        document[-1] = EOS_ID
    packed = torch.cat(documents)[None]
    masked, alone = _model(), _model()
    together = masked(packed, intra_document_masking=True)[0]
    apart = torch.cat([alone(document[None])[0] for document in documents])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)
    together.square().sum().backward()
    apart.square().sum().backward()
    for name, parameter in masked.named_parameters():
        expected = dict(alone.named_parameters())[name].grad
        torch.testing.assert_close(parameter.grad, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("recompute", [False, True])
def test_one_document_needs_no_mask(recompute: bool) -> None:
    model = Decoder(CFG, world.VOCAB, recompute)
    model.load_state_dict(dict(initial_weights(CFG, world.VOCAB, 3)))
    tokens = torch.arange(20, 50)[None]
    plain, masked = model(tokens, tokens)[0], model(tokens, tokens, True)[0]
    torch.testing.assert_close(plain, masked, atol=1e-5, rtol=1e-5)
