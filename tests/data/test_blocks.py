"""Blocks of text: every token is a target once, behind the one before it."""

import dataclasses

import numpy as np
import pytest
from corpora import make_documents
from streams import assert_equal, take

from spade_jax.data.config import TextBlocksConfig
from spade_jax.data.pipeline import train_batches, validation_batches
from spade_jax.objectives.causal_lm_batch import CausalLMBatch

END, LENGTH = 1, 48


@pytest.fixture(scope="module")
def blocks(direct):
    return TextBlocksConfig(
        sources=direct.sources,
        input_length=LENGTH,
        document_shuffle_buffer=8,
        shuffle_buffer=16,
        seed=3,
        extra_ids=0,
    )


def tokens_of(seed, count):
    """Of documents, by hand: bytes are 3 and more, and 1 is the end."""
    return [[byte + 3 for byte in text.encode()] + [END] for text in make_documents(count, seed)]


def held_out(config, rows=4):
    batches = [CausalLMBatch.of(batch) for batch in validation_batches(config, rows)]
    return [np.concatenate([getattr(b, f) for b in batches]) for f in ("inputs", "targets")]


def test_across_documents_all_text_is_one(blocks):
    inputs, targets = held_out(blocks)
    text = [token for document in tokens_of(9, 7) for token in document]
    np.testing.assert_array_equal(targets.ravel()[: len(text)], text)
    np.testing.assert_array_equal(inputs.ravel()[: len(text)], [END, *text[:-1]])
    assert not targets.ravel()[len(text) :].any()


def test_within_documents_each_begins_a_block(blocks):
    inputs, targets = held_out(dataclasses.replace(blocks, across_documents=False))
    rows = iter(zip(inputs, targets))
    for document in tokens_of(9, 7):
        for start in range(0, len(document), LENGTH):
            row, target = next(rows)
            piece = document[start : start + LENGTH]
            before = [END, *document[:-1]][start : start + LENGTH]
            np.testing.assert_array_equal(target, piece + [0] * (LENGTH - len(piece)))
            np.testing.assert_array_equal(row[: len(piece)], before)
    assert not any(target.any() for _, target in rows)


@pytest.mark.parametrize("across", [True, False])
def test_a_position_in_the_data_is_saved(blocks, across):
    config = dataclasses.replace(blocks, across_documents=across)
    batches = train_batches(config, 4)
    first = take(batches, 5)
    state, following = batches.get_state(), take(batches, 3)
    assert all(batch["decoder_loss_weights"].any(axis=1).all() for batch in first)
    again = train_batches(config, 4)
    again.set_state(state)
    for one, other in zip(following, take(again, 3)):
        assert_equal(one, other)
