import pytest

from spade_jax.config import ConfigError
from spade_jax.config.pattern import Group, LayerSpec, count_layers, parse_pattern

SPADE = LayerSpec(("s4", "window"), "concat")
WINDOW = LayerSpec(("window",))


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ("window", [Group((WINDOW,))]),
        ("s4+window:concat, 11*window", [Group((SPADE,)), Group((WINDOW,), 11)]),
        ("s4+window", [Group((SPADE,))]),
        ("s4+full:add", [Group((LayerSpec(("s4", "full"), "add"),))]),
        ("mega:no_ff", [Group((LayerSpec(("mega",), None, False),))]),
        ("s4+window:residual", [Group((LayerSpec(("s4", "window"), "residual"),))]),
        ("s4+window:stack:no_ff", [Group((LayerSpec(("s4", "window"), "stack", False),))]),
        (
            "8*(2*mamba, window)",
            [Group((LayerSpec(("mamba",)), LayerSpec(("mamba",)), WINDOW), 8)],
        ),
        ("(window, 2*window)", [Group((WINDOW,)), Group((WINDOW,), 2)]),
        ("2*(3*(window))", [Group((WINDOW,) * 3, 2)]),
    ],
)
def test_patterns(pattern, groups):
    assert parse_pattern(pattern) == tuple(groups)
    assert parse_pattern(pattern.replace(" ", "")) == tuple(groups)


def test_layers_are_counted():
    assert count_layers(parse_pattern("s4+window, 3*(2*window, full), full")) == 11


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "a layer is missing at its end"),
        ("window,", "a layer is missing at its end"),
        ("2*", "a layer is missing at its end"),
        ("0*window", "every repeat must be at least 1"),
        ("-1*window", r"'\*' is not expected there"),
        ("2*(window", "a group is not closed"),
        ("window)", r"'\)' is not expected there"),
        ("a+b+c", "'a.b.c' is no layer"),
        ("s4+window:conct", "did you mean 'concat'"),
        ("window:concat", "'window:concat' combines, but has one mixer only"),
        ("1025*window", "at most 1024 layers"),
        ("40*(30*window)", "at most 1024 layers"),
        ("9" * 5000 + "*window", "at most 1024 layers"),
        ("1000*window, 25*full", "at most 1024 layers"),
        ("²*window", "is not expected there"),
        ("2*(" * 20 + "window" + ")" * 20, "too many groups in groups"),
        ("**window", "is no layer"),
    ],
)
def test_what_is_no_pattern(pattern, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_pattern(pattern, "model.encoder.layers")
    assert str(error.value).startswith("model.encoder.layers = ")
    assert len(str(error.value)) < 2000
