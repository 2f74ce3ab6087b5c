"""What a data configuration says, and what it rejects."""

import dataclasses
import subprocess
import sys

import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from spade_jax.config import ConfigError, from_dict
from spade_jax.data.config import DataConfig, DenoiserConfig, SourceConfig


def test_t5_lengths():
    denoiser = DenoiserConfig(noise_density=0.15, mean_span_length=3.0)
    assert denoiser.segment_length(512) == 568
    assert denoiser.count_noise(568) == (85, 28)
    assert denoiser.lengths(568) == (512, 114)
    assert DataConfig(input_length=512).decoder_length == 114


@pytest.mark.parametrize("density", [0.01, 0.15, 0.3, 0.5, 0.55])
@pytest.mark.parametrize("mean", [1.5, 3.0, 8.0, 64.0])
def test_inputs_fill_exactly(density, mean):
    denoiser = DenoiserConfig(density, mean)
    for length in (*range(3, 70), 512, 4096):
        segment = denoiser.segment_length(length)
        assert denoiser.lengths(segment)[0] == length
        assert denoiser.lengths(segment + 1)[0] == length + 1


@pytest.mark.parametrize("length", [3, 64, 512, 5000])
def test_segments_are_the_longest_that_fit(length):
    for denoiser in (DenoiserConfig(), DenoiserConfig(0.9, 64.0), DenoiserConfig(1e-6, 3.0)):
        longest = max(n for n in range(2, 20 * length) if denoiser.lengths(n)[0] <= length)
        assert denoiser.segment_length(length) == longest


def test_lengths_are_found_at_once_and_bounded():
    config = DataConfig(input_length=2**20, extra_ids=2**17)
    assert config.decoder_length == 233_018
    denoisers = (DenoiserConfig(0.99, 10_000.0),)
    with pytest.raises(ConfigError, match=r"data.input_length = 131072: must be less with these"):
        DataConfig(input_length=2**17, denoisers=denoisers, extra_ids=2**17)


def test_decoder_takes_the_longest_targets():
    config = DataConfig(denoisers=(DenoiserConfig(), DenoiserConfig(0.5, 32.0)))
    longest = DenoiserConfig(0.5, 32.0)
    assert config.decoder_length == longest.lengths(longest.segment_length(512))[1] > 400
    assert dataclasses.replace(config, target_length=1000).decoder_length == 1000


def test_patterns():
    source = SourceConfig(kind="text", train="a.txt, b*.txt,", validation=("c.txt", "d,e.txt"))
    assert source.patterns("train") == ("a.txt", "b*.txt")
    assert source.patterns("validation") == ("c.txt", "d,e.txt")


def test_command_line_overrides(monkeypatch):
    config = DataConfig(denoisers=(DenoiserConfig(), DenoiserConfig(0.5, 32.0, weight=2.0)))
    command_line = [
        "program",
        "--config.data.sources[0].kind=text",
        "--config.data.sources[0].train=a.txt,b.txt",
        "--config.data.denoisers[1].noise_density=0.25",
        "--config.data.input_length=128",
    ]
    monkeypatch.setattr(sys, "argv", command_line)  # config_flags looks there for indices.
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict(
        "config",
        ml_collections.ConfigDict({"data": dataclasses.asdict(config)}),
        flag_values=values,
    )
    values(command_line)
    built = from_dict(DataConfig, values.config.data)
    assert built == DataConfig(
        sources=(SourceConfig(kind="text", train="a.txt,b.txt"),),
        denoisers=(DenoiserConfig(), DenoiserConfig(0.25, 32.0, weight=2.0)),
        input_length=128,
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SourceConfig(kind="txt"), r"data.sources.kind = 'txt': .*did you mean 'text'"),
        (lambda: SourceConfig(train="mine.txt"), r"data.sources.train = 'mine.txt': .*kind"),
        (lambda: SourceConfig(kind="text"), r"data.sources.train = '': must name"),
        (lambda: SourceConfig(kind="tfds", train="train"), r"data.sources.name = None"),
        (lambda: SourceConfig(kind="text", train="a", data_dir="b"), r"data_dir = 'b'"),
        (lambda: SourceConfig(weight=0.0), r"data.sources.weight = 0.0"),
        (lambda: DenoiserConfig(noise_density=1.0), r"noise_density = 1.0"),
        (lambda: DenoiserConfig(mean_span_length=0.5), r"mean_span_length = 0.5"),
        (lambda: DenoiserConfig(0.75, 2.0), r"mean_span_length = 2.0: must be above .* = 3"),
        (lambda: DataConfig(sources=()), r"data.sources = \(\): must have an entry"),
        (lambda: DataConfig(input_length=2), r"data.input_length = 2"),
        (lambda: DataConfig(input_length=4096), r"data.extra_ids = 100: must be at least 227"),
        (lambda: DataConfig(target_length=113), r"data.target_length = 113: .*at least 114"),
        (lambda: DataConfig(shuffle_buffer=0), r"data.shuffle_buffer = 0"),
        (lambda: DataConfig(seed=-1), r"data.seed = -1"),
        (lambda: DataConfig(input_length=10**12), r"input_length = .*: must be at most 1048576"),
        (lambda: DataConfig(shuffle_buffer=10**19), r"shuffle_buffer = .*at most 16777216"),
        (lambda: DenoiserConfig(0.15, float("inf")), r"mean_span_length = inf: must be at most"),
        (lambda: DataConfig(vocabulary="a\0"), r"data.vocabulary = .*: must be text in UTF-8"),
    ],
)
def test_rejections(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("module", ["config", "train_vocabulary"])
def test_imports_no_tensorflow(module):
    code = (
        f"import sys, spade_jax.data.{module}; "
        "sys.exit(bool({'tensorflow', 'seqio', 'sentencepiece', 'jax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
