"""The authors' checkpoints as runs, by command, and back."""

import json

import numpy as np
import pytest
from flax import nnx
from golden_data import OUTPUT_TOLERANCE, Golden, output_error
from pieces import train_pieces

import spade_jax
from spade_jax.interop.authors import our_id, read_checkpoint, write_checkpoint
from spade_jax.interop.authors.runs import _with_our_ids
from spade_jax.interop.from_authors import main as from_authors
from spade_jax.interop.to_authors import main as to_authors

TEXT = "we go by the sea and read all day long of ships that went down there"
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A golden file, its checkpoint, and the run's folder that is made of it."""
    folder = tmp_path_factory.mktemp("authors")
    golden = Golden("msrlongt5_relu_post")
    length = "encoder.block.0.layer.0.s4.s4.kernel.kernel.L"
    weights = golden.group("param/") | golden.group("after/")
    weights[length] = weights[length].astype(np.int64)
    write_checkpoint(folder / "theirs", golden.config, weights, form="safetensors")
    pieces = train_pieces(folder / "pieces.model", WORDS, 40, byte_fallback=False)
    arguments = [f"--checkpoint={folder / 'theirs'}", f"--vocabulary={pieces}", "--extra_ids=2"]
    assert from_authors([*arguments, f"--output={folder / 'run'}", "--names"]) == 0
    return golden, weights, folder


def test_a_run_of_it_computes_the_same(made):
    golden, _, folder = made
    run = spade_jax.load(folder / "run")
    ids = np.vectorize(our_id)
    mask = golden["in/attention_mask"]
    encode = nnx.jit(lambda model, tokens: model.encode(tokens, segment_ids=mask))
    encoded = encode(run.model, ids(golden["in/input_ids"]))
    expected = golden["out/encoder_last_hidden_state"]
    assert output_error(encoded, expected, mask) < OUTPUT_TOLERANCE
    assert run.input_length == 40


@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_and_goes_back_to_the_bit(made, form, tmp_path):
    if form == "torch":
        pytest.importorskip("torch")
    golden, weights, folder = made
    arguments = [f"--checkpoint={folder / 'run'}", f"--output={tmp_path / 'back'}"]
    assert to_authors([*arguments, f"--form={form}"]) == 0
    config, back, _ = read_checkpoint(tmp_path / "back")
    assert back.keys() == weights.keys()
    for name, array in weights.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(back[name], array, err_msg=name)
    assert config.items() >= golden.config.items()


def test_what_is_wrong_is_one_line(made, tmp_path, capsys):
    _, _, folder = made
    output = f"--output={tmp_path / 'run'}"
    theirs = [f"--checkpoint={folder / 'theirs'}", "--vocabulary=bytes"]
    assert from_authors([*theirs, f"--output={folder / 'run'}"]) == 2
    assert "holds something; must be" in capsys.readouterr().err
    assert from_authors([*theirs, output]) == 2  # 259 tokens, of 64
    assert "must have at most 64 tokens" in capsys.readouterr().err
    assert from_authors([*theirs, output, "--allow_left=("]) == 2
    assert "--allow_left = '('" in capsys.readouterr().err
    nothing = [f"--checkpoint={tmp_path / 'nothing'}", "--vocabulary=bytes", output]
    assert from_authors(nothing) == 1
    assert capsys.readouterr().err.endswith("weights\n")
    wrong = [f"--checkpoint={folder / 'run'}", output, f"--origin={folder / 'theirs'}"]
    assert to_authors(wrong) == 2
    assert "must be a folder that from_authors has made" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert json.loads((folder / "run" / "origin.json").read_text())["layout"] == "the authors'"


def test_a_vocabulary_with_their_ids_is_exchanged_as_the_weights_are(tmp_path):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS),
        model_prefix=str(tmp_path / "theirs"),
        vocab_size=40,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "ours").mkdir()
    path = _with_our_ids(str(tmp_path / "theirs.model"), tmp_path / "ours", 1)
    theirs = sentencepiece.SentencePieceProcessor(str(tmp_path / "theirs.model"))
    ours = sentencepiece.SentencePieceProcessor(path)
    assert (ours.pad_id(), ours.bos_id(), ours.eos_id(), ours.unk_id()) == (0, 1, 2, 3)
    for token in range(theirs.GetPieceSize()):
        assert ours.IdToPiece(our_id(token)) == theirs.IdToPiece(token)
    text = "we read of ships"
    assert ours.encode(text) == [our_id(token) for token in theirs.encode(text)]
    assert _with_our_ids(path, tmp_path, 1) == path
