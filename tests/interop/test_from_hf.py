"""A T5 of Hugging Face as the start of a SPADE: logits equal to transformers', and training on."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pieces import train_pieces

import spade_jax
from spade_jax.interop.from_hf import main
from spade_jax.models.build import builder
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch
from spade_jax.runs.open import open_run
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.initial import initial_state, plan
from spade_jax.training.sharding import make_mesh
from spade_jax.training.step import make_trainer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = dict(
    vocab_size=384,
    d_model=16,
    d_kv=4,
    d_ff=24,
    num_layers=3,
    num_decoder_layers=2,
    num_heads=2,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=16,
    dropout_rate=0.1,
)
# The class of each, its settings, what config.json is made to say, and whether it has a head.
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any], bool]] = {
    "t5": ("T5", {"feed_forward_proj": "relu"}, {}, False),
    "t5-v1.1": ("T5", {"feed_forward_proj": "gated-gelu"}, {"tie_word_embeddings": False}, True),
    "longt5": (
        "LongT5",
        {"feed_forward_proj": "gated-gelu", "local_radius": 3},
        {"tie_word_embeddings": False},
        False,
    ),
    "umt5": ("UMT5", {"feed_forward_proj": "gated-gelu"}, {"tie_word_embeddings": False}, True),
}
TOLERANCE = 2e-5


def write_checkpoint(folder, kind, *, as_torch=False, max_shard_size="5GB", **sizes):
    """A random model of a kind, as a folder; one with a head is given it there, for version 5 of
    transformers ties what it makes."""
    name, settings, said, head = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **settings, **sizes})
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            weight.copy_(torch.randn(weight.shape) * 0.05 + ("layer_norm" in key))
            if key == "shared.weight":
                weight.mul_(10)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    raw.pop("tie_word_embeddings", None)
    raw.pop("scale_decoder_outputs", None)
    path.write_text(json.dumps(raw | said))
    if head:
        from safetensors.numpy import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        random = np.random.default_rng(1).normal(size=(384, 16)).astype(np.float32)
        tensors["lm_head.weight"] = random
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if as_torch:
        from safetensors.torch import load_file as load_torch

        torch.save(load_torch(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return folder


def batch(length, target=6):
    """Rows of which one is padded."""
    random = np.random.default_rng(2)
    inputs = random.integers(3, 384, (2, length), dtype=np.int32)
    inputs[1, length - length // 3 :] = 0
    targets = random.integers(3, 384, (2, target), dtype=np.int32)
    targets[:, 0] = 0
    return inputs, targets


@pytest.mark.filterwarnings("ignore")
def their_logits(folder, lengths):
    name = KINDS[folder.name][0]
    model = getattr(transformers, f"{name}ForConditionalGeneration").from_pretrained(folder).eval()
    found = []
    for length in lengths:
        inputs, targets = (torch.tensor(array).long() for array in batch(length))
        with torch.no_grad():
            output = model(
                input_ids=inputs, attention_mask=(inputs != 0).long(), decoder_input_ids=targets
            )
        found.append(output.logits.numpy())
    return found


def our_logits(model, lengths):
    @jax.jit
    def logits(inputs, targets):
        return model(inputs, targets, encoder_segment_ids=jnp.asarray(inputs != 0, jnp.int32))

    return [np.asarray(logits(*batch(length))) for length in lengths]


def converted(folder, output, *options):
    arguments = [f"--checkpoint={folder}", f"--output={output}", "--state_size=4"]
    assert main([*arguments, "--vocabulary=bytes", *options]) == 0
    return spade_jax.load(output)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Of a kind, as a folder of that name."""
    root = tmp_path_factory.mktemp("checkpoints")
    return lambda kind: (
        root / kind if (root / kind).exists() else write_checkpoint(root / kind, kind)
    )


@pytest.mark.parametrize(
    ("kind", "options", "lengths"),
    [
        ("t5", ["--encoder=full"], (40,)),
        ("t5-v1.1", ["--radius=11"], (12,)),
        # Below its block of four tokens, at it, and above.
        ("longt5", [], (3, 4, 23)),
        ("umt5", ["--encoder=full"], (20,)),
    ],
)
def test_the_model_begins_as_the_one_that_it_comes_from(
    checkpoints, tmp_path, kind, options, lengths
):
    folder = checkpoints(kind)
    run = converted(folder, tmp_path / "run", *options)
    assert run.config.encoder.layers.startswith("s4+")
    assert run.config.tie_embeddings == (not KINDS[kind][3])
    assert run.config.scale_logits == (kind == "t5")
    for ours, theirs in zip(our_logits(run.model, lengths), their_logits(folder, lengths)):
        assert np.std(theirs) > 0.1
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * np.abs(theirs).max())


def test_without_a_state_space_and_by_files_of_pytorch_in_pieces(tmp_path):
    """The same weights, whatever files they come in."""
    plain = write_checkpoint(tmp_path / "t5", "t5", max_shard_size="10KB")
    assert len([*plain.glob("*.safetensors")]) > 2
    run = converted(plain, tmp_path / "plain", "--no_state_space", "--radius=11")
    assert run.config.encoder.layers == "3*window"
    assert set(run.config.mixers) == {"window", "full"}
    pickled = write_checkpoint(tmp_path / "bin" / "t5", "t5", as_torch=True)
    other = converted(pickled, tmp_path / "other", "--radius=11")
    (ours,), (theirs,) = our_logits(run.model, (9,)), our_logits(other.model, (9,))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_it_learns_to_use_the_state_space(tmp_path):
    small = write_checkpoint(tmp_path / "longt5", "longt5", num_layers=1, num_decoder_layers=1)
    converted(small, tmp_path / "run")
    run = open_run(tmp_path / "run", "init_from")
    trainer = make_trainer(
        builder(run.model),
        Seq2Seq(),
        OptimizerConfig(learning_rate=3e-3, schedule="constant", warmup_steps=0),
        TrainConfig(steps=20, batch_size=2),
        make_mesh(MeshConfig()),
    )
    shapes = trainer.state_shapes.params
    state = initial_state(run, plan(run, shapes, ()), shapes, trainer.init)
    layer = state.params["encoder"]["layers_0"]
    assert not np.any(layer["aggregate"]["kernel"])
    before = np.array(layer["global_mixer"]["c"])
    named = Seq2SeqBatch.unpacked(*batch(12)).named()
    losses = []
    for _ in range(20):
        state, metrics = trainer.train_step(state, named)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.9 * losses[0]
    layer = state.params["encoder"]["layers_0"]
    assert np.abs(layer["aggregate"]["kernel"]).max() > 1e-3
    assert np.abs(layer["global_mixer"]["c"] - before).max() > 1e-3


@pytest.mark.parametrize(
    ("said", "options", "status", "message"),
    [
        (
            {"model_type": "bart"},
            [],
            2,
            "model_type = 'bart': must be one of t5, longt5, mt5",
        ),
        ({"feed_forward_proj": "gated-silu"}, [], 2, "feed_forward_proj = 'gated-silu': must be"),
        (
            {"d_ff": 25},
            [],
            1,
            "wo.weight is [16, 24] among the weights; must be [16, 25]",
        ),
        ({"num_layers": 2}, [], 1, "the weights hold encoder.block.2.layer.0.LocalSelfAttention.k"),
        (
            {"num_layers": 4},
            [],
            1,
            "the weights lack encoder.block.3.layer.1",
        ),
        ({"num_heads": None}, [], 2, "num_heads = None: must be int"),
        ({"encoder_attention_type": "transient-global"}, [], 2, 'must be "local": summaries of'),
        ({}, ["--encoder=full"], 2, "--encoder = 'full': must be window: LongT5's encoder"),
        ({}, ["--state_size=7"], 2, "state_size = 7: must be even"),
        ({}, ["--vocabulary=gone.model"], 2, "'gone.model': no such file"),
    ],
)
def test_what_cannot_be_taken_is_said_in_one_sentence(
    checkpoints, tmp_path, capsys, said, options, status, message
):
    source = checkpoints("longt5")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(source / "model.safetensors")
    raw = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | said))
    arguments = [f"--checkpoint={folder}", f"--output={tmp_path / 'run'}", "--vocabulary=bytes"]
    assert main([*arguments, *options]) == status
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_head_that_contradicts_its_configuration_is_refused(checkpoints, tmp_path, capsys):
    source = checkpoints("t5-v1.1")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(source / "model.safetensors")
    raw = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"tie_word_embeddings": True}))
    arguments = [f"--checkpoint={folder}", f"--output={tmp_path / 'run'}", "--vocabulary=bytes"]
    assert main(arguments) == 2
    assert "tie_word_embeddings = True: contradicts the weights" in capsys.readouterr().err


TEXT = [
    "The state of the Union is strong, and the people have made it so; that is good.",
    "translate English to German: who knew, in 1984, that about 12% of 3.14 million dollars",
    "two spaces, a tab and a new line were paid (in all) by people of many nations",
] * 5


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A folder with spiece.model and tokenizer_config.json."""
    folder = tmp_path_factory.mktemp("words")
    train_pieces(folder / "spiece.model", TEXT, 200, byte_fallback=False)
    said = {"tokenizer_class": "T5Tokenizer", "extra_ids": 20}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fast", [False, True], ids=["spiece.model", "tokenizer.json"])
def test_the_vocabulary_comes_along(checkpoints, words, tmp_path, capsys, fast):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).symlink_to(checkpoints("longt5") / name)
    (folder / "tokenizer_config.json").symlink_to(words / "tokenizer_config.json")
    tokenizer = transformers.T5Tokenizer.from_pretrained(words)
    if fast:
        tokenizer.save_pretrained(tmp_path / "fast")
        (folder / "tokenizer.json").symlink_to(tmp_path / "fast" / "tokenizer.json")
    else:
        (folder / "spiece.model").symlink_to(words / "spiece.model")
    arguments = [f"--checkpoint={folder}", f"--output={tmp_path / 'made'}", "--state_size=4"]
    assert main(arguments) == 0
    assert "sample lines are those of the checkpoint's tokenizer" in capsys.readouterr().out
    (tmp_path / "made").rename(tmp_path / "moved")
    run = spade_jax.load(tmp_path / "moved")
    assert run.vocabulary.extra_ids == 20
    assert run.vocabulary.size == len(tokenizer)
    for text in (TEXT[0], "who <extra_id_0> dollars <extra_id_19>"):
        expected = tokenizer(text.replace(" <", "<"), add_special_tokens=False)["input_ids"]
        assert run.vocabulary.tokens(text.replace(" <", "<")) == expected
    assert run.vocabulary.tokens("<extra_id_0>") == [len(tokenizer) - 1]
    if not fast:
        assert (tmp_path / "moved" / "spiece.model").read_bytes() == (
            words / "spiece.model"
        ).read_bytes()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no weights; must hold model.safetensors,"),
        ({"model.safetensors": b"no such file"}, "is no whole safetensors file"),
        ({"pytorch_model.bin": b"no such file"}, "cannot be read as weights of PyTorch ("),
        ({"pytorch_model.bin.index.json": b"{}"}, "is no index of files (KeyError"),
        ({"config.json": b"{"}, "config.json: cannot be read as JSON"),
        ({"config.json": b"{}"}, "says no model_type"),
    ],
)
def test_a_damaged_file_is_named(checkpoints, tmp_path, capsys, files, message):
    config = (checkpoints("t5") / "config.json").read_bytes()
    for name, content in ({"config.json": config} | files).items():
        (tmp_path / name).write_bytes(content)
    assert main([f"--checkpoint={tmp_path}", f"--output={tmp_path / 'run'}"]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_pickle_that_would_run_something_is_refused(checkpoints, tmp_path, capsys):
    (tmp_path / "config.json").symlink_to(checkpoints("t5") / "config.json")
    torch.save({"shared.weight": Runs(tmp_path / "it ran")}, tmp_path / "pytorch_model.bin")
    assert main([f"--checkpoint={tmp_path}", f"--output={tmp_path / 'run'}"]) == 1
    assert "cannot be read as weights of PyTorch" in capsys.readouterr().err
    assert not (tmp_path / "it ran").exists()


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")
