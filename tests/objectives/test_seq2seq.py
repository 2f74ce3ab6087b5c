import dataclasses
from typing import Any

import pytest
from jax.sharding import AbstractMesh, AxisType

from spade_jax.config import AttentionConfig, ConfigError, StackConfig
from spade_jax.mixers import S4, Window
from spade_jax.models.presets import preset
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.ops import dispatch
from spade_jax.partition import MESH_AXES


def mesh_of(*sizes: int) -> Any:
    return AbstractMesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 4)


@pytest.mark.parametrize(
    ("sizes", "changes", "length", "message"),
    [
        ((1, 1, 3, 1), {}, 64, r"mesh.tensor = 3: must divide model.attention.num_heads = 4"),
        (
            (1, 1, 1, 2),
            {"encoder": StackConfig("s4+full:add")},
            128,
            "mesh.sequence = 2: must be 1 with full attention in the encoder",
        ),
        ((1, 1, 1, 3), {}, 1024, "mesh.sequence = 3: must cut sequences of 1024 tokens into equal"),
        (
            (1, 1, 1, 8),
            {},
            512,
            "must cut sequences of 512 tokens into shards longer than .* = 100",
        ),
    ],
)
def test_models_must_divide_over_the_mesh(sizes, changes, length, message):
    config = preset("tiny", vocab_size=384, **changes)
    wide = {**config.mixers, "window": Window(100)}
    mesh = mesh_of(*sizes)
    with pytest.raises(ConfigError, match=message):
        Seq2Seq().check(dataclasses.replace(config, mixers=wide), (length, 57), mesh)
    Seq2Seq().check(config, (1024, 57), mesh_of(2, 4, 1, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention": AttentionConfig(num_heads=4, head_dim=32, implementation="palas")},
            "model.attention.implementation = 'palas': must be one of xla",
        ),
        (
            {"mixers": {"s4": S4(implementation="triton")}},
            "model.mixers.s4.implementation = 'triton': must be one of xla",
        ),
        (
            {"mixers": {"s4": S4(convolution="fft", implementation="xla")}},
            "implementation = 'xla': must be None with convolution \"fft\"",
        ),
    ],
)
def test_implementations_that_are_named_must_be_there(changes, message):
    with pytest.raises(ConfigError, match=message):
        Seq2Seq().check(preset("tiny", vocab_size=384, **changes), (1024, 57), mesh_of(1, 1, 1, 1))


def test_implementations_must_take_the_model_s_attention():
    def check(head_dim, layers="s4+window:concat", **more):
        attention = AttentionConfig(num_heads=4, head_dim=head_dim, implementation="pallas_gpu")
        config = preset(
            "tiny", vocab_size=384, attention=attention, encoder=StackConfig(layers), **more
        )
        Seq2Seq().check(config, (1024, 57), mesh_of(1, 1, 1, 1))

    elsewhere = (
        "model.attention.implementation = 'pallas_gpu': window attention: implementation "
        "'pallas_gpu' runs on a gpu, and this is for a cpu; xla"
    )
    with pytest.raises(ConfigError, match=elsewhere):
        check(32)
    # Of cross-attention, where there is no other.
    with pytest.raises(ConfigError, match=r"'pallas_gpu': full attention: .* runs on a gpu"):
        check(32, "s4", decoder=StackConfig("s4"))
    with dispatch.interpreted():
        check(32)
        check(32, dropout_rate=0.1, dtype="bfloat16")
        with pytest.raises(ConfigError, match=r"takes heads of 16, 32, 64, 128, and these have 24"):
            check(24)
