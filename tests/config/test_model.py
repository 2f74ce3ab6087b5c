import dataclasses

import pytest

from spade_jax.config import ConfigError, ModelConfig, StackConfig, from_dict
from spade_jax.config.file import to_config_dict
from spade_jax.mixers import S4, Full, Window
from spade_jax.models.presets import preset

SETTINGS = {
    "vocab_size": 8,
    "d_model": 12,
    "d_ff": 4,
    "encoder": {"layers": "s4+wide"},
    "decoder": {"layers": "full"},
    "mixers": {"wide": {"kind": "window", "radius": 511}},
    "attention": {"num_heads": 2},
}


def test_mixers_have_names_and_kinds_their_defaults():
    model = from_dict(ModelConfig, SETTINGS)
    assert model.mixers == {"s4": S4(), "wide": Window(511), "full": Full()}
    assert from_dict(ModelConfig, dataclasses.asdict(model)) == model
    assert from_dict(ModelConfig, to_config_dict(model)) == model
    assert hash(model) == hash(from_dict(ModelConfig, SETTINGS))


def test_sizes_keep_their_mixers_beside_those_that_change():
    assert preset("tiny", mixers={"window": Window(3)}).mixers == {
        "s4": S4(state_size=16, chunk_length=64),
        "window": Window(3),
        "full": Full(),
    }
    assert preset("base", "msr").mixers["s4"] == S4(max_kernel_length=16384, detach=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixers": {"wide": {"radius": 3}}}, "config.mixers.wide.kind = None: must be a kind"),
        (
            {"mixers": {"wide": {"kind": "windw"}}},
            "config.mixers.wide.kind = 'windw': .*did you mean 'window'",
        ),
        (
            {"mixers": {"wide": {"kind": "window", "radius": 0}}},
            "model.mixers.window.radius = 0: must be at least 1",
        ),
        (
            {"mixers": {"wide": {"kind": "window", "raduis": 3}}},
            "config.mixers.wide.raduis: no such setting; did you mean 'radius'",
        ),
        (
            {"encoder": {"layers": "wnidow"}},
            "model.encoder.layers = 'wnidow': there is no mixer 'wnidow'; did you mean 'window'",
        ),
        ({"ssm": {"state_size": 8}}, r"config.ssm: is called model.mixers.s4 now"),
        (
            {"attention": {"radius": 3}},
            "config.attention.radius: is called model.mixers.window.radius now",
        ),
        (
            {"encoder": {"layers": "s4"}, "mixers": {"s4": {"kind": "s4", "num_copies": 5}}},
            "num_copies = 5: must divide",
        ),
    ],
)
def test_what_is_no_model(changes, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(ModelConfig, {**SETTINGS, **changes})


def test_a_decoder_may_have_any_mixer():
    model = dataclasses.replace(from_dict(ModelConfig, SETTINGS), decoder=StackConfig("s4"))
    assert [spec.mixers for spec in model.decoder.layer_specs] == [("s4",)]
