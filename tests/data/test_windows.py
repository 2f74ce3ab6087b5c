"""Windows over text that is measured."""

import numpy as np
import pytest
from corpora import make_documents

from spade_jax.data import windows
from spade_jax.data.vocabulary import load_vocabulary


@pytest.mark.parametrize(
    ("count", "length", "context"),
    [(30, 8, 0), (32, 8, 0), (30, 8, 5), (5, 8, 4), (8, 8, 7), (9, 8, 7), (1, 8, 3), (23, 8, 1)],
)
def test_each_token_counts_once_and_has_its_context(count, length, context):
    text = np.arange(10, 10 + count)
    found = windows.windows(text, length, context, start=1)
    counted = []
    for inputs, targets, weights in zip(found.inputs, found.targets, found.weights):
        real = targets > 0
        assert (inputs[real] == np.where(targets[real] == 10, 1, targets[real] - 1)).all()
        for place in np.flatnonzero(weights):
            assert place >= min(context, targets[place] - 10)
        counted += targets[weights > 0].tolist()
    assert counted == text.tolist()


def test_batches_are_full(direct):
    texts = [windows.windows(range(5, 5 + n), 4, 0, 1) for n in (9, 4, 2)]
    batches = [*windows.batches(texts, 3)]
    assert [batch["decoder_target_tokens"].shape for batch in batches] == [(3, 4), (3, 4)]
    counted = sum(int(batch["decoder_loss_weights"].sum()) for batch in batches)
    assert counted == 15
    assert not batches[1]["decoder_target_tokens"][2:].any()


def test_words_and_bytes_of_documents(direct):
    found = windows.read(direct.sources, "validation", load_vocabulary(direct))
    texts = make_documents(7, 9)
    assert [d.words for d in found] == [len(text.split()) for text in texts]
    assert [d.bytes for d in found] == [len(text.encode()) for text in texts]
    assert [len(d.tokens) for d in found] == [len(text.encode()) + 1 for text in texts]
    assert {d.unknown for d in found} == {0}
