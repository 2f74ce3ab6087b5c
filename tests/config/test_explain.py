"""Settings that explain themselves."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest

from finetune.config import FinetuneConfig
from pretrain.__main__ import main
from pretrain.config import PretrainConfig
from spade_jax.config import Kinds, Range
from spade_jax.config.explain import as_text, settings

CLASSES = ("pretrain.config:PretrainConfig", "finetune.config:FinetuneConfig")


def without_sentence_or_range(found):
    """Settings that say too little."""
    return [
        s.name
        for s in found
        if len(s.words) < 2 or re.search(r"\b(int|float)\b(?! (from|above) )", s.type)
    ]


@pytest.mark.parametrize("config_class", [PretrainConfig, FinetuneConfig])
def test_every_setting_has_a_sentence_and_every_number_a_range(config_class):
    found = settings(config_class)
    assert len(found) > 100
    # Other tests' kinds of mixers may be there as well.
    ours = [s for s in found if set(s.kinds).isdisjoint({"moving_average", "gate"})]
    assert without_sentence_or_range(ours) == []
    names = {setting.name for setting in found}
    assert {"model.d_model", "model.mixers.NAME.radius", "train.steps", "optimizer.betas"} <= names


def test_what_a_setting_says():
    found = {s.name: s for s in settings(PretrainConfig)}
    assert found["model.d_ff"].type == "int from 1 to 524288"
    assert found["model.d_ff"].default == ""
    assert found["model.dropout_rate"].type == "float from 0 below 1"
    assert found["model.mixers.NAME.radius"].kinds == ("window",)
    assert found["model.encoder.layers"].kinds == ("encoder_decoder", "classifier")
    assert found["train.patience"].type.endswith("or None to never stop")
    assert found["data.sources.0.kind"].default == "'sotu'"
    assert "must be set" in as_text([found["train.steps"]])


def test_one_without_a_sentence_or_a_range_is_found():
    @dataclasses.dataclass(frozen=True)
    class Settings:
        """Settings.

        Attributes:
          unbound: of any size.
        """

        silent: Annotated[int, Range(1, 2)] = 1
        unbound: float = 1.0

    assert without_sentence_or_range(settings(Settings)) == ["silent", "unbound"]


def test_settings_of_some_kinds_name_them():
    @dataclasses.dataclass(frozen=True)
    class Shape(Kinds, family="kind of shape"):
        """A shape.

        Attributes:
          name: what it is called.
        """

        name: str = ""

    @dataclasses.dataclass(frozen=True)
    class Square(Shape, kind="square"):
        """A square.

        Attributes:
          side: in metres.
        """

        side: Annotated[float, Range(0, 9)] = 1.0

    @dataclasses.dataclass(frozen=True)
    class Point(Shape, kind="point"):
        """A point."""

    found = {s.name: s for s in settings(Shape, "shape.")}
    assert found["shape.kind"].type == "one of square, point"
    assert found["shape.name"].kinds == ()
    assert found["shape.side"].kinds == ("square",)


def test_a_command_line_asks(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help-config=warmup_steps"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("optimizer.warmup_steps\n    int from 0 to")
    with pytest.raises(SystemExit):
        main(["--help-config=Nesterov"])  # among the words
    assert capsys.readouterr().out.startswith("optimizer.name\n")
    assert main(["--help-config=warmup_step.d"]) == 2
    assert "did you mean 'optimizer.warmup_steps'?" in capsys.readouterr().err


def test_the_page_of_the_docs_is_current():
    written = Path(__file__).parents[2] / "docs" / "settings.md"
    # In a process that knows no kinds of other tests.
    command = [sys.executable, "-m", "spade_jax.config.page", *CLASSES]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made.stdout == written.read_text(), "make docs writes it anew"
