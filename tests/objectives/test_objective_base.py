import jax
import numpy as np

from spade_jax.objectives.base import batch_digest
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch


def batch():
    rng = np.random.default_rng(0)
    inputs, targets = (rng.integers(1, 16, (8, length), dtype=np.int32) for length in (12, 6))
    return Seq2SeqBatch.unpacked(inputs, targets).named()


def test_digest_of_a_batch_knows_each_number_and_its_place():
    one = batch()
    digest = int(jax.jit(batch_digest)(one))
    assert digest == int(batch_digest({name: one[name] for name in reversed(one)}))
    digests = {digest}
    changed = {**one, "encoder_input_tokens": one["encoder_input_tokens"].copy()}
    changed["encoder_input_tokens"][3, 5] += 1
    digests.add(int(batch_digest(changed)))
    digests.add(int(batch_digest({name: array[::-1] for name, array in one.items()})))
    digests.add(int(batch_digest({name: array[:, ::-1] for name, array in one.items()})))
    swapped = {
        **one,
        "decoder_input_tokens": one["decoder_target_tokens"],
        "decoder_target_tokens": one["decoder_input_tokens"],
    }
    digests.add(int(batch_digest(swapped)))
    assert len(digests) == 5


def test_digest_of_labels():
    labels = np.arange(8, dtype=np.int32)
    digests = [int(batch_digest({"labels": array})) for array in (labels, labels[::-1])]
    assert digests[0] != digests[1]
    assert digests[0] == int(batch_digest({"labels": labels[:, None]}))
