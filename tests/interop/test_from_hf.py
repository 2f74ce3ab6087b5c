"""A T5 of Hugging Face as the start of a SPADE: logits equal to transformers', and training on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spade_jax
from spade_jax.interop.from_hf import main

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = dict(
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
KINDS = {
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


def write_checkpoint(folder, kind, *, as_torch=False, max_shard_size="5GB"):
    """A random model of a kind, as a folder; one with a head is given it there, for version 5 of
    transformers ties what it makes."""
    name, settings, said, head = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**SIZES, **settings)
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
        ("t5", ["--encoder=full"], (9, 40)),
        ("t5-v1.1", ["--radius=11"], (5, 12)),
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
