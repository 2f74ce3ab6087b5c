"""A language model from its configuration to text that it writes, by the programs."""

import json
import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.special
from flax import nnx

import spade_jax
from pretrain.__main__ import main as pretrain
from pretrain.perplexity import main as perplexity
from spade_jax.data.text_to_text.tables import read_rows
from spade_jax.decoding.__main__ import main as decode
from spade_jax.interop.export.__main__ import main as export
from spade_jax.interop.from_safetensors import main as from_safetensors

CONFIG = f"--config={Path(__file__).parent / 'miniature_lm.py'}"
TEXT = "We meet again.\n\nThe river  and the treaty; peace."


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    assert pretrain([CONFIG, f"--workdir={folder}"]) == 0
    return folder


@jax.jit
def logits(state, tokens):
    """Of a model split into its graph, which is static, and its state."""
    return nnx.merge(*state)(tokens)


def logits_of(folder):
    run = spade_jax.load(folder)
    return run.step, logits(nnx.split(run.model), run.tokens([TEXT]))


def test_gone_on_equals_never_stopped(workdir, tmp_path, capsys):
    """The first half ends with its perplexity and a continuation; then it goes on."""
    assert pretrain([CONFIG, f"--workdir={tmp_path}", "--config.train.steps=4"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    found = re.search(r"validation perplexity ([\d.]+) per token \(([\d.]+) nats", printed)
    assert math.exp(float(found[2])) == pytest.approx(float(found[1]), rel=1e-3)
    assert "by non-overlapping blocks of 64 tokens across documents" in printed
    assert "Held-out passage 1 begins Fellow-Citizens" in printed
    assert pretrain([CONFIG, f"--workdir={tmp_path}", "--config.train.steps=8"]) == 0
    (step, found), (other, expected) = logits_of(tmp_path), logits_of(workdir)
    assert step == other == 8
    np.testing.assert_array_equal(found, expected)


def test_perplexity_by_hand(workdir, tmp_path, capsys):
    run = spade_jax.load(workdir)
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    tokens = run.vocabulary.encode(TEXT)
    targets = np.array([*tokens, 1])
    inputs = np.array([1, *tokens])
    state = nnx.split(run.model)

    def by_hand(length, context):
        nats, begin = 0.0, 0
        while begin < max(1, len(targets) - context):
            window = slice(begin, begin + length)
            # One length for all: what follows changes nothing before it.
            own = np.pad(inputs[window], (0, length - len(inputs[window])))
            found = scipy.special.log_softmax(logits(state, own[None])[0], axis=-1)
            losses = -found[np.arange(len(targets[window])), targets[window]]
            nats += float(losses[context if begin else 0 :].sum())
            begin += length - context
        return nats

    def printed(*options):
        options = (f"--checkpoint={workdir}", f"--input={path}", "--batch_size=2", *options)
        assert perplexity(options) == 0
        return capsys.readouterr().out

    capsys.readouterr()
    for options, length, context in (
        ((), 64, 0),
        (("--length=16",), 16, 0),
        (("--protocol=sliding", "--length=16", "--min_context=5"), 16, 5),
    ):
        out, nats = printed(*options), by_hand(length, context)
        assert ("sliding" in out) == bool(context)
        found = {line.split("  ")[0]: line for line in out.splitlines()}
        for name, value in (
            ("per token", math.exp(nats / len(targets))),
            ("per word", math.exp(nats / len(TEXT.split()))),
            ("bits per byte", nats / math.log(2) / len(TEXT.encode())),
        ):
            number = float(re.search(r"\s([\d.]+|e\^[\d.]+)\s", found[name])[1])
            assert number == pytest.approx(value, rel=1e-3)


def test_prompts_are_lines(workdir, tmp_path, capsys):
    lines = ["Fellow citizens of the", "", "The treaty with", "é"]
    path = tmp_path / "prompts.txt"
    path.write_text("".join(line + "\n" for line in lines))
    settings = [f"--checkpoint={workdir}", f"--input={path}", "--max_length=20"]
    capsys.readouterr()
    assert decode(settings) == 0  # as it comes
    streamed = capsys.readouterr().out
    assert decode([*settings, "--batch_size=3"]) == 0
    assert capsys.readouterr().out == streamed
    run = spade_jax.load(workdir)
    written = run.generate([line for line in lines if line], max_length=20)
    expected = [" ".join(text.splitlines()) for text in written]
    assert streamed.splitlines() == [expected[0], "", *expected[1:]]
    # Of a table a prompt is one with its line breaks, and so is what is written behind it.
    table, output = tmp_path / "prompts.jsonl", tmp_path / "out.csv"
    table.write_text("".join(json.dumps({"text": line}) + "\n" for line in (lines[0], "a\nb")))
    arguments = [f"--input={table}", f"--output={output}", "--batch_size=3"]
    assert decode([*settings, *arguments]) == 0
    rows = [row for _, row in read_rows(str(output))]
    assert rows[0] == {"text": lines[0], "prediction": written[0]}
    assert rows[1]["text"] == "a\nb"
    assert decode([*settings, "--input_length=3"]) == 0
    assert "3 inputs were cut off at 3 tokens" not in capsys.readouterr().out


def test_it_comes_back_from_safetensors(workdir, tmp_path, capsys):
    out, again = tmp_path / "out", tmp_path / "again"
    arguments = ["--format=safetensors", "--no-verify"]
    assert export([f"--checkpoint={workdir}", f"--output={out}", *arguments]) == 0
    assert from_safetensors([f"--checkpoint={out}", f"--output={again}"]) == 0
    np.testing.assert_array_equal(logits_of(again)[1], logits_of(workdir)[1])
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    capsys.readouterr()
    for folder in (workdir, again):
        assert perplexity([f"--checkpoint={folder}", f"--input={path}"]) == 0
    first, second = capsys.readouterr().out.split("protocol")[1:]
    assert first == second


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (perplexity, ["--min_context=4"], "--min_context = 4: must go with --protocol=sliding"),
        (
            perplexity,
            ["--protocol=sliding", "--length=8", "--min_context=8"],
            "--min_context = 8: must be below the length, 8",
        ),
        (perplexity, ["--input=none.txt"], "data.sources.train = 'none.txt': "),
        (
            decode,
            ["--input=-", "--beams=2"],
            "decoding.beams = 2: must be 1 with a language model",
        ),
        (
            pretrain,
            [CONFIG, "--config.data.kind=span_corruption", "--config.data.extra_ids=100"],
            "config.data.across_documents: no such setting",
        ),
        (
            pretrain,
            [CONFIG, "--config.model.adaptive={'cutoffs':(20,10)}"],
            "model.adaptive.cutoffs = (20, 10): must be ascending, and at least one",
        ),
        (
            pretrain,
            [
                CONFIG,
                "--config.model.decoder={'layers':'window','positions':'learned',"
                "'max_positions':32}",
            ],
            "model.decoder.max_positions = 32: must be at least 64",
        ),
    ],
)
def test_what_cannot_be_is_a_sentence(workdir, tmp_path, program, arguments, message, capsys):
    where = f"--workdir={tmp_path / 'new'}" if program is pretrain else f"--checkpoint={workdir}"
    assert program([where, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_encoder_decoder_has_no_perplexity_of_this_kind(pretrained, capsys):
    assert perplexity([f"--checkpoint={pretrained}"]) == 2
    assert "the model of --checkpoint.kind = 'encoder_decoder': must be 'decoder_only' here" in (
        capsys.readouterr().err
    )
