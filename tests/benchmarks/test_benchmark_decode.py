import re

import jax
import numpy as np
import pytest

from benchmarks import decode
from spade_jax.config import AttentionConfig, EncoderDecoderConfig, StackConfig
from spade_jax.mixers import S4, Window

END, OUTPUTS, BATCH = 1, 12, 4
MINIATURE = EncoderDecoderConfig(
    vocab_size=20,
    d_model=32,
    d_ff=24,
    encoder=StackConfig("s4+window:concat"),
    decoder=StackConfig("2*full"),
    mixers={"s4": S4(state_size=8, chunk_length=8), "window": Window(3)},
    attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
    # Where they are tied, a model that learnt nothing repeats the token that it wrote last.
    tie_embeddings=False,
    scale_logits=False,
)


@pytest.fixture(scope="module")
def written():
    """The tokens of each method, by a model that often writes what ends an output elsewhere."""
    programs, (params, inputs, encoded) = decode.competitors(MINIATURE, 17, OUTPUTS, BATCH)
    output = params["output"]
    # Likelier wherever 9 was the likeliest, which this model's outputs are full of.
    output[...] = output[...].at[END].set(2 * output[9])
    return {
        name: np.asarray(jax.jit(program)(params, inputs, encoded))
        for name, program in programs.items()
        if name != decode.ENCODER
    }


def test_competitors_compute_the_same(written):
    """A ratio of times means something only then."""
    np.testing.assert_array_equal(written[decode.GREEDY], written[decode.UNCACHED])
    assert len(np.unique(written[decode.GREEDY])) > 4


def test_every_method_goes_on_to_the_last_token(written):
    for name, tokens in written.items():
        assert tokens.shape == (BATCH, OUTPUTS)
        # Of an output that ends there, zeros follow.
        assert ((tokens[:, :-1] == END) & (tokens[:, 1:] != 0)).any(), name


@pytest.mark.slow
def test_table_has_a_row_for_each_length_and_method(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    sizes = ["--preset=tiny", "--vocab-size=32", "--outputs=3", "--batch-size=2", "--repeats=1"]
    decode.main(["--lengths", "8", "16", *sizes])
    printed = capsys.readouterr().out
    # Length, method, milliseconds, those of a token, tokens/s, ratio, MiB.
    number = r" +([\d.,]+)"
    row = (
        rf"│ +(\d+) │ (\S+(?: \w+)*(?:, \d)?) +│{number} │{number} │{number} │{number}x │{number} │"
    )
    rows = re.findall(row, printed)
    methods = ["uncached greedy", "greedy", "beam search, 4"]
    expected = [(length, method) for length in ("8", "16") for method in methods]
    assert [row[:2] for row in rows] == expected
    for _, method, *numbers in rows:
        whole, a_token, tokens_a_second, ratio, _ = (float(x.replace(",", "")) for x in numbers)
        # Three steps for two rows, within what rounding to 0.1 ms allows, from 100 on to 1 ms.
        rounding = 0.1 if whole < 100 else 1.0
        assert a_token == pytest.approx(whole / 3, abs=0.1 + rounding / 3)
        assert tokens_a_second == pytest.approx(
            2 * 3 / (whole / 1e3), abs=0.1, rel=rounding / whole
        )
        assert method != "uncached greedy" or ratio == 1.0
    # The encoder writes no token.
    encoders = re.findall(rf"│ +(\d+) │ encoder +│{number} │ +│ +│ +│{number} │", printed)
    assert [length for length, *_ in encoders] == ["8", "16"]
    assert "batch 2, 3 tokens written" in printed
    assert "cores" in printed


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--outputs=0", "argument --outputs: '0' is not a positive integer"),
        ("--preset=smal", "preset = 'smal': must be one of tiny, small, base, large"),
        ("--vocab-size=3", "--vocab-size = 3: must be at least 4, the number of beams"),
        ("--config.model.d_ff=8", "--config = None: must name what is to be overridden"),
    ],
)
def test_a_wrong_option_is_rejected_in_one_line(capsys, option, message):
    with pytest.raises(SystemExit) as stopped:
        decode.main([option])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_language_model_has_a_row_for_each_context(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    sizes = ["--outputs=4", "--batch-size=2", "--repeats=1", "--anew=32"]
    overrides = ["--config.model.d_model=16", "--config.model.decoder.layers=window,full"]
    config = "--config=configs/pretrain/lm_quickstart.py"
    decode.main([config, "--lengths", "32", "64", *sizes, *overrides])
    printed = capsys.readouterr().out
    number = r" +([\d.,]+)"
    rows = re.findall(
        rf"│{number} │{number} │{number} │{number} │(.*)│(.*)│{number} │{number} │", printed
    )
    assert [row[0] for row in rows] == ["32", "64"]
    for _, _, milliseconds, a_second, *_ in rows:
        assert float(a_second.replace(",", "")) == pytest.approx(
            2e3 / float(milliseconds), rel=0.1, abs=0.1
        )
    (_, *_, anew, ratio, cache, _), (*_, no_anew, no_ratio, larger, _) = rows
    assert float(anew) > 0
    assert ratio.strip().endswith("x")
    assert no_anew.strip() == no_ratio.strip() == ""
    assert float(cache) <= float(larger)  # full attention's grows
