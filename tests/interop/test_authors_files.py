"""Checkpoints of the authors' as files."""

import argparse
import json
import os
import pickle
import sys

import numpy as np
import pytest
from authors import arguments, shapes_of
from golden_data import Golden

from spade_jax.config import ConfigError, RunError
from spade_jax.interop.authors import model_config, read_checkpoint, to_ours, write_checkpoint

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def relu():
    golden = Golden("msrlongt5_relu_post")
    weights = golden.group("param/") | golden.group("after/")
    length = "encoder.block.0.layer.0.s4.s4.kernel.kernel.L"
    return {"model_type": "msrlongt5", **golden.config}, weights | {
        length: weights[length].astype(np.int64)
    }


@pytest.fixture
def folder(relu, tmp_path):
    write_checkpoint(tmp_path / "model", *relu)
    return tmp_path / "model"


def assert_read(found, expected):
    assert found.keys() == expected.keys()
    assert found.shapes == shapes_of(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_encoder_decoder_as_a_folder(relu, form, tmp_path):
    settings, expected = relu
    write_checkpoint(tmp_path / "model", settings, expected, form=form)
    config, weights, kind = read_checkpoint(tmp_path / "model")
    assert (config, kind) == (settings, "encoder-decoder")
    assert_read(weights, expected)
    to_ours(weights, model_config(config, weights.shapes))
    with pytest.raises(ConfigError, match=r"^path = .*: holds something; must be a new or an"):
        write_checkpoint(tmp_path / "model", settings, expected, form=form)


def test_files_from_before_pytorch_1_6(relu, folder):
    _, expected = relu
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in expected.items()}
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert_read(read_checkpoint(folder)[1], expected)


def test_numbers_of_two_bytes(relu, folder):
    _, expected = relu
    tensors = {n: torch.from_numpy(np.array(a)).to(torch.bfloat16) for n, a in expected.items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    found = read_checkpoint(folder)[1]["shared.weight"]
    assert found.dtype.name == "bfloat16"
    np.testing.assert_allclose(found.astype(np.float32), expected["shared.weight"], rtol=2**-8)


@pytest.fixture(scope="module")
def language_model():
    golden = Golden("spade_lm_adaptive")
    return arguments(golden.config), golden.group("param/")


def test_language_model_as_a_fairseq_file(language_model, tmp_path):
    settings, expected = language_model
    write_checkpoint(tmp_path / "checkpoint.pt", settings, expected)
    config, weights, kind = read_checkpoint(tmp_path / "checkpoint.pt")
    assert kind == "language-model"
    assert config == {"_name": "spade_lm", **settings}
    assert_read(weights, expected)
    with pytest.raises(ConfigError, match=r"^path = .*: is there already; must be a new name"):
        write_checkpoint(tmp_path / "checkpoint.pt", settings, expected)


def test_scores_of_numpy_and_old_arguments_are_read(language_model, tmp_path):
    settings, expected = language_model
    del (settings := dict(settings))["max_target_positions"]
    state = {
        "args": argparse.Namespace(**settings, tokens_per_sample=23),
        "model": {name: torch.from_numpy(np.array(array)) for name, array in expected.items()},
        "extra_state": {"best": np.float64(1.5), "history": np.arange(3), "step": np.int64(7)},
    }
    torch.save(state, tmp_path / "checkpoint.pt")
    config, weights, _ = read_checkpoint(tmp_path / "checkpoint.pt")
    model = model_config(config, weights.shapes)
    assert model.mixers["s4"].max_kernel_length == 23


class Command:
    def __reduce__(self):
        return os.system, ("exit 1",)


def test_a_pickle_that_wants_more_is_refused_by_name_and_not_run(language_model, tmp_path):
    for new in (True, False):
        path = tmp_path / "checkpoint.pt"
        torch.save({"model": {}, "x": Command()}, path, _use_new_zipfile_serialization=new)
        with pytest.raises(RunError, match=r"checkpoint\.pt: its pickle asks for posix\.system; "):
            read_checkpoint(path)


def damage(path, how):
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("no weights at all\n")
    elif how == "pickle":
        path.write_bytes(pickle.dumps([1, 2, 3]))


@pytest.mark.parametrize("how", ["cut", "empty", "text", "pickle"])
def test_a_damaged_file_is_one_sentence(folder, how):
    damage(folder / "pytorch_model.bin", how)
    with pytest.raises(RunError, match=r"pytorch_model\.bin: (is no whole|holds no)") as error:
        read_checkpoint(folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_what_is_no_checkpoint_is_said(folder, tmp_path):
    with pytest.raises(RunError, match=r"nowhere: is not there"):
        read_checkpoint(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r": holds no config\.json"):
        read_checkpoint(tmp_path)
    torch.save({"other": {}}, tmp_path / "file.pt")
    with pytest.raises(RunError, match=r"file\.pt: holds no 'model'"):
        read_checkpoint(tmp_path / "file.pt")
    torch.save({"model": {"a": torch.ones(2)}}, tmp_path / "file.pt")
    with pytest.raises(RunError, match=r"file\.pt: holds no settings"):
        read_checkpoint(tmp_path / "file.pt")
    torch.save({"shared.weight": torch.ones(3, 2)}, folder / "pytorch_model.bin")
    with pytest.raises(RunError, match=r"model: weights: are no state dict of the authors'"):
        read_checkpoint(folder)
    torch.save({"shared.weight": "text"}, folder / "pytorch_model.bin")
    with pytest.raises(RunError, match=r"'shared.weight' is no tensor"):
        read_checkpoint(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(RunError, match=r"holds neither model.safetensors nor pytorch_model.bin"):
        read_checkpoint(folder)
    (folder / "config.json").write_text(json.dumps([1]))
    with pytest.raises(RunError, match=r"config\.json: is damaged"):
        read_checkpoint(folder)


def test_without_pytorch_one_sentence_says_so(folder, relu, language_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    new = folder.parent / "new"
    for use in (
        lambda: read_checkpoint(folder),
        lambda: write_checkpoint(new, *relu),
        lambda: write_checkpoint(new, *language_model),
    ):
        with pytest.raises(RunError, match=r"needs PyTorch, which is not installed; install it, o"):
            use()
    assert not new.exists()
