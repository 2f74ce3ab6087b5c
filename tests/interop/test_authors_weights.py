"""The authors' state dicts in and out again."""

import dataclasses

import numpy as np
import pytest
from authors import EMBEDDING, arguments, shapes_of
from golden_data import FOLDER, Golden

from spade_jax.config import ConfigError, RunError, StackConfig
from spade_jax.interop import names
from spade_jax.interop.authors import authors_config, model_config, our_id, to_ours, to_theirs
from spade_jax.interop.authors.config import every_so_many
from spade_jax.mixers import S4, Window
from spade_jax.models.presets import preset

ENCODER_DECODERS = sorted(path.stem for path in FOLDER.glob("msrlongt5_*.npz"))
LANGUAGE_MODELS = sorted(path.stem for path in FOLDER.glob("spade_lm_*.npz"))
S4_NAME = "encoder.block.0.layer.0.s4.s4.kernel.kernel."


def state_dict(name: str, *, used: bool = False):
    """Settings and weights of a golden file; used: after a forward pass, which makes C~ of C."""
    golden = Golden(name)
    return golden.config, golden.group("param/") | (golden.group("after/") if used else {})


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture(scope="module")
def relu():
    """Settings, weights, model."""
    config, weights = state_dict("msrlongt5_relu_post", used=True)
    return config, weights, model_config(config, shapes_of(weights))


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_decoder_comes_back_to_the_bit(name, used):
    config, weights = state_dict(name, used=used)
    model = model_config(config, shapes_of(weights))
    imported = to_ours(weights, model)
    assert {n: a.shape for n, a in imported.params.items()} == {
        n: s.shape for n, s in names.shapes(model).items()
    }
    assert imported.report.left == imported.report.missing == ()
    assert len(imported.report.mapped) + 1 == len(weights)  # and L
    assert imported.report.table().row_count == len(weights)
    assert_same(to_theirs(imported.params, imported.kept, model), weights)


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_c_of_the_authors_c_tilde(relu):
    _, weights, model = relu
    _, raw = state_dict("msrlongt5_relu_post")
    c = to_ours(weights, model).params["encoder/layers/0/global_mixer/c"]
    # What their float32 costs.
    assert relative(c, raw[f"{S4_NAME}C"]) < 1e-4


def test_c_tilde_is_computed_where_c_or_the_dynamics_changed(relu):
    _, weights, model = relu
    imported = to_ours(weights, model)
    mixer = "encoder/layers/0/global_mixer/"
    fresh = to_theirs(imported.params, {}, model)
    assert fresh[f"{S4_NAME}L"] == 40
    assert fresh[f"{S4_NAME}L"].dtype == np.int64
    assert 0 < relative(fresh[f"{S4_NAME}C"], weights[f"{S4_NAME}C"]) < 3e-7

    moved = imported.params | {f"{mixer}log_dt": imported.params[f"{mixer}log_dt"] + 0.1}
    changed = to_theirs(moved, imported.kept, model)
    assert relative(changed[f"{S4_NAME}C"], weights[f"{S4_NAME}C"]) > 1e-3
    again = to_ours(changed, model).params[f"{mixer}c"]
    assert relative(again, imported.params[f"{mixer}c"]) < 3e-7

    raw = to_theirs(imported.params, imported.kept, model, raw_c=True)
    assert raw[f"{S4_NAME}L"] == 0
    np.testing.assert_array_equal(raw[f"{S4_NAME}C"], imported.params[f"{mixer}c"])


def test_ids_positions_and_tied_names(relu):
    _, weights, model = relu
    shared = weights["shared.weight"]
    aliases = ("lm_head.weight", "encoder.embed_tokens.weight")
    imported = to_ours(weights | dict.fromkeys(aliases, shared), model)
    embedding = imported.params["embedding"]
    np.testing.assert_array_equal(embedding[[our_id(i) for i in range(len(shared))]], shared)
    assert [our_id(i) for i in range(4)] == [1, 0, 2, 3]
    table = weights["decoder.pos_embed.weight"]
    np.testing.assert_array_equal(imported.params["decoder/position_table"], table[2:])
    np.testing.assert_array_equal(imported.kept["decoder.pos_embed.weight"], table[:2])
    # What was trained is written under all of its names.
    imported.params["embedding"] = embedding + 1
    back = to_theirs(imported.params, imported.kept, model)
    for name in ("shared.weight", *aliases):
        np.testing.assert_array_equal(back[name], shared + 1)
    assert "decoder.embed_tokens.weight" not in back


def test_other_widths_of_numbers_come_back_as_they_came(relu):
    _, weights, model = relu
    halves = {n: a.astype(np.float16) if a.ndim else a for n, a in weights.items()}
    imported = to_ours(halves, model)
    assert {a.dtype for a in imported.params.values()} == {np.dtype(np.float32)}
    assert_same(to_theirs(imported.params, imported.kept, model), halves)


@pytest.mark.parametrize(
    ("layers", "decoder_layers", "heads", "width", "copies", "length", "feed_forward", "placement"),
    [
        (1, 3, 3, 36, 4, 50, "gated-gelu", "pre"),
        (5, 1, 2, 48, 1, 8, "gelu", "post"),
        (4, 4, 8, 16, 16, 33, "relu", "pre"),
    ],
)
def test_models_of_other_sizes(
    layers, decoder_layers, heads, width, copies, length, feed_forward, placement
):
    base = preset("tiny", "msr", vocab_size=30)
    more = f", {layers - 1}*window" if layers > 1 else ""
    model = dataclasses.replace(
        base,
        d_model=width,
        d_ff=20,
        encoder=dataclasses.replace(base.encoder, layers=f"s4+window:concat{more}"),
        decoder=dataclasses.replace(
            base.decoder, layers=f"{decoder_layers}*full", max_positions=length
        ),
        attention=dataclasses.replace(base.attention, num_heads=heads),
        mixers={
            "s4": S4(state_size=6, num_copies=copies, max_kernel_length=length, detach=True),
            "window": Window(5),
        },
        feed_forward=feed_forward,
        feed_forward_bias=feed_forward != "gated-gelu",
        norm_placement=placement,
    )
    random = np.random.default_rng(0)
    params = {
        name: random.normal(size=shape.shape, scale=0.3).astype(np.float32)
        for name, shape in names.shapes(model).items()
    }
    config = authors_config(model, "encoder-decoder")
    weights = to_theirs(params, {}, model)
    again = model_config(config, shapes_of(weights))
    assert again == dataclasses.replace(
        model,
        mixers=again.mixers,  # how they run is ours
    )
    imported = to_ours(weights, again)
    c = "encoder/layers/0/global_mixer/c"
    assert relative(imported.params[c], params[c]) < 3e-7
    assert_same(imported.params, params | {c: imported.params[c]})
    assert_same(to_theirs(imported.params, imported.kept, again), weights)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize(
    "name",
    LANGUAGE_MODELS,
)
def test_language_model_comes_back_to_the_bit(name, used):
    config, weights = state_dict(name, used=used)
    weights["decoder.version"] = np.array([3], np.float32)
    model = model_config(arguments(config), shapes_of(weights))
    assert model.vocab_size == config["vocab"]
    every = config["s4_every_n_layers"]
    assert [bool(spec.combine) for spec in model.decoder.layer_specs] == [
        i % every == 0 for i in range(config["layers"])
    ]
    imported = to_ours(weights, model)
    if config["adaptive"] is not None:
        name = "decoder.embed_tokens.embeddings.1.0.weight"
        np.testing.assert_array_equal(imported.params["embedding/band_1/embedding"], weights[name])
    assert imported.report.left == imported.report.missing == ()
    assert_same(to_theirs(imported.params, imported.kept, model), weights)


def test_language_model_whose_output_is_its_own():
    config, weights = state_dict("spade_lm_concat_pre")
    output = "decoder.output_projection.weight"
    weights[output] = weights[output] + 1
    settings = arguments(config)
    with pytest.raises(RunError, match=f"{output}: differs from {EMBEDDING}"):
        to_ours(weights, model_config(settings, shapes_of(weights)))
    settings["share_decoder_input_output_embed"] = False
    model = model_config(settings, shapes_of(weights))
    imported = to_ours(weights, model)
    np.testing.assert_array_equal(imported.params["output"][0], weights[output][1])
    assert_same(to_theirs(imported.params, imported.kept, model), weights)


def test_every_so_many_layers():
    for layers in range(1, 9):
        for every in range(1, 10):
            stack = StackConfig(every_so_many(layers, every, "add"))
            found = [bool(spec.combine) for spec in stack.layer_specs]
            assert found == [i % every == 0 for i in range(layers)]


def test_what_is_missing_left_or_of_another_shape_is_named(relu):
    config, weights, model = relu
    fewer = dict(weights)
    del fewer["decoder.block.1.layer.2.layer_norm.bias"]
    with pytest.raises(RunError, match=r"1 of \d+ arrays are missing, such as decoder.block.1.lay"):
        to_ours(fewer, model)
    more = weights | {"decoder.odd.weight": np.ones(3, np.float32)}
    with pytest.raises(RunError, match=r"hold 1 arrays .* such as decoder.odd.weight"):
        to_ours(more, model)
    imported = to_ours(more, model, allow_left=[r"decoder\.odd\..*"])
    assert imported.report.left == ("decoder.odd.weight",)
    assert_same(to_theirs(imported.params, imported.kept, model), more)
    bent = weights | {f"{S4_NAME}B": weights[f"{S4_NAME}B"][:, :16]}
    with pytest.raises(RunError, match=r"kernel.B: is \[1, 16, 4, 2\] .* and \[1, 32, 4, 2\]"):
        model_config(config, shapes_of(bent))
    without_form = {n: a for n, a in weights.items() if n != f"{S4_NAME}L"}
    with pytest.raises(RunError, match=r"missing, such as .*\.L"):
        to_ours(without_form, model)
    with pytest.raises(RunError, match=r"lm_head.weight: differs from shared.weight"):
        to_ours(weights | {"lm_head.weight": weights["shared.weight"] * 2}, model)
    with pytest.raises(RunError, match=r"no state dict of the authors'.*but hold shared.weight"):
        to_ours({"shared.weight": np.ones((3, 3))}, model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 3}, "num_layers = 3: must be 2, the layers that the file holds"),
        ({"num_layers": 0}, "num_layers = 0: must be at least 1"),
        ({"num_decoder_layers": 1}, "num_decoder_layers = 1: must be 2"),
        ({"s4_every_n_layers": 0}, "s4_every_n_layers = 0: must be at least 1"),
        ({"d_kv": 64}, "d_kv = 64: must be d_model / num_heads = 32 / 4"),
        ({"s4_channels": 2}, "s4_channels = 2: must be 1"),
        ({"s4_n_ssm": 7}, "s4_n_ssm = 7: must divide the width, which is 32"),
        ({"decoder_roberta_lm_head": True}, "decoder_roberta_lm_head = True: must be false"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj = 'gated-silu': must be one of"),
        ({"model_type": "longt5"}, "model_type = 'longt5': must be \"msrlongt5\""),
        ({"d_model": "32"}, "d_model = '32': must be a whole number"),
    ],
)
def test_settings_that_cannot_be_are_named(relu, change, message):
    config, weights, _ = relu
    with pytest.raises(ConfigError, match="^" + message):
        model_config(config | change, shapes_of(weights))


def test_a_model_that_the_authors_lack_is_no_checkpoint_of_theirs():
    with pytest.raises(ConfigError, match=r"^model.mixers.s4.max_kernel_length = None: must be se"):
        authors_config(preset("tiny", vocab_size=64), "encoder-decoder")
    model = preset("tiny", "msr", vocab_size=64)
    with pytest.raises(ConfigError, match=r"max_kernel_length = 16384: must be 1024"):
        authors_config(model, "encoder-decoder")  # as many as positions
    s4 = dataclasses.replace(model.mixers["s4"], max_kernel_length=1024)
    model = dataclasses.replace(model, mixers={**model.mixers, "s4": s4})
    with pytest.raises(ConfigError, match=r"^model\.feed_forward"):
        authors_config(dataclasses.replace(model, feed_forward_bias=True), "encoder-decoder")
    assert authors_config(model, "encoder-decoder")["max_position_embeddings"] == 1024
