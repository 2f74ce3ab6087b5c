"""Training batches of pairs of texts, and the texts in them."""

import itertools

from spade_jax.data.text_to_text.inspection import examine
from spade_jax.data.text_to_text.training_batches import train_pairs
from spade_jax.data.vocabulary import load_vocabulary

BYTES = {"vocabulary": "bytes", "extra_ids": 100}


def batches(config, batch_size, count, **hosts):
    sizes = [part.examples for part in examine(config)]
    return list(itertools.islice(train_pairs(config, batch_size, sizes, **hosts), count))


def texts(config, batches):
    """The pairs in unpacked batches, as text."""
    vocabulary = load_vocabulary(config)
    return [
        (vocabulary.decode(inputs), vocabulary.decode(targets))
        for batch in batches
        for inputs, targets in zip(batch["encoder_input_tokens"], batch["decoder_target_tokens"])
    ]
