import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch

INPUTS = np.array([[5, 6, 1], [7, 1, 0]], np.int32)
TARGETS = np.array([[8, 1], [1, 0]], np.int32)


def test_targets_are_shifted_and_weighed():
    batch = Seq2SeqBatch.unpacked(INPUTS, TARGETS)
    np.testing.assert_array_equal(batch.shifted, [[0, 8], [0, 1]])
    np.testing.assert_array_equal(batch.weights, [[1, 1], [1, 0]])
    assert {array.dtype for array in batch.named().values()} == {np.dtype("int32")}
    assert batch.num_tokens == 8
    np.testing.assert_array_equal(batch.counted_targets, [8, 1, 1])
    row = Seq2SeqBatch.unpacked(INPUTS[1], TARGETS[1])
    np.testing.assert_array_equal(row.shifted, batch.shifted[1])


def test_dictionaries_and_back():
    batch = Seq2SeqBatch.unpacked(INPUTS, TARGETS)
    arrays = batch.named()
    assert len(arrays) == 4
    assert Seq2SeqBatch.of(arrays) == batch
    packed = arrays | {"encoder_segment_ids": INPUTS > 0}
    assert Seq2SeqBatch.of(packed).input_segments is packed["encoder_segment_ids"]
    assert Seq2SeqBatch.of(packed).named() == packed


def test_what_is_no_such_batch():
    arrays = Seq2SeqBatch.unpacked(INPUTS, TARGETS).named()
    with pytest.raises(ValueError, match=r"^batch: has an array 'tokens'; must have those of Seq"):
        Seq2SeqBatch.of(arrays | {"tokens": INPUTS})
    del arrays["decoder_loss_weights"]
    with pytest.raises(ValueError, match=r"^batch: has no array 'decoder_loss_weights'; must have"):
        Seq2SeqBatch.of(arrays)


def test_types_are_those_of_a_batch():
    arrays = Seq2SeqBatch.unpacked(INPUTS, TARGETS).named()
    types = Seq2SeqBatch.types(2, (3, 2))
    assert types == {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}


def test_one_sequence_is_changed_alone():
    batch = Seq2SeqBatch.unpacked(INPUTS, TARGETS)
    longer = batch.each("targets", lambda array: np.pad(array, ((0, 0), (0, 3))))
    assert Seq2SeqBatch.types(2, (3, 5)) == {
        name: (array.shape, str(array.dtype)) for name, array in longer.named().items()
    }


def test_definitions_need_no_framework():
    code = (
        "import sys, spade_jax.objectives.config, spade_jax.objectives.seq2seq_batch, "
        "spade_jax.objectives.classification_batch; "
        "print({'jax', 'flax', 'tensorflow', 'seqio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def imports_of(room: str) -> set[str]:
    """The modules of spade_jax outside of a room that it imports; commands are none of it."""
    found = (Path(__file__).parents[2] / "spade_jax" / room).rglob("*.py")
    files = [file for file in found if file.name != "__main__.py"]
    names = re.compile(r"^ *from spade_jax(?:\.([\w.]+))? import (\w+)", re.MULTILINE)
    found = {module or name for file in files for module, name in names.findall(file.read_text())}
    return {module for module in found if module.partition(".")[0] != room}


def test_data_knows_the_batches_alone_and_objectives_no_data():
    rooms = {module.partition(".")[0] for module in imports_of("objectives")}
    assert rooms <= {"config", "models", "ops", "partition", "places"}
    modules = {module for module in imports_of("data") if not module.startswith("config")}
    batches = {module for module in modules if module.startswith("objectives.")}
    kinds = ("causal_lm", "classification", "seq2seq")
    assert batches == {f"objectives.{kind}_batch" for kind in kinds}
    assert modules - batches <= {"files", "parsing", "programs", "stored"}
