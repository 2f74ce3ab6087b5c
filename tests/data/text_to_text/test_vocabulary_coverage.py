"""What vocabularies cannot write, and what is said, refused and compared because of it."""

import dataclasses
import itertools
import json
import random
import re

import pytest
from corpora import make_documents
from pieces import train_pieces

from finetune.evaluation import measure
from spade_jax.config import ConfigError
from spade_jax.data.config import DataError
from spade_jax.data.metrics import METRICS
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.evaluation_sets import evaluation_sets
from spade_jax.data.text_to_text.inspection import examine, look_through
from spade_jax.data.text_to_text.registry import TASKS
from spade_jax.data.text_to_text.vocabulary_coverage import Tally, check_labels
from spade_jax.data.vocabulary import load_vocabulary

KINDS = ("bytes", "fallback", "lacking", "digits")


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    """Bytes; SentencePiece with the bytes of what it lacks, and without, of letters alone or of
    what labels and numbers are made of, too."""
    directory = tmp_path_factory.mktemp("pieces")
    text = make_documents(30, 0)
    text = [re.sub(r"[^a-zé ]", "", line) for line in text] + ["abcdefghijklmnopqrstuvwxyz"]
    more = [*text, "0 1 2 3 4 5 6 7 8 9 . _ 0.2 3.8 not_equivalent summary"]
    made = {
        "fallback": train_pieces(directory / "a.model", text, 300, byte_fallback=True),
        "lacking": train_pieces(directory / "b.model", text, 60, byte_fallback=False),
        "digits": train_pieces(directory / "c.model", more, 90, byte_fallback=False),
    }
    return {"bytes": "bytes", **{name: str(path) for name, path in made.items()}}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def local(vocabulary, **settings):
    given = {"inputs": ("in",), "target": "out", "vocabulary": vocabulary, "extra_ids": 100}
    return TaskConfig(**given | settings)


def checked(config):
    """Checks the labels as a run does at its start."""
    check_labels(config.tasks, load_vocabulary(config), config.target_length)


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        (
            "fallback",
            ("星２つ", "星5つ"),
            "'星２つ': the vocabulary writes this as '星2つ'; must be",
        ),
        ("fallback", ("no", "½"), "'½': the vocabulary writes this as '1⁄2'; must be a word that"),
        ("fallback", ("a", "b  c"), "'b  c': the vocabulary writes this as 'b c'; must be"),
        ("fallback", ("a", "b\tc"), "'b\\tc': the vocabulary writes this as 'b c'; must be"),
        ("fallback", ("…", "..."), "'…': the vocabulary writes this as '...', as it does '...'; m"),
        ("lacking", ("<", "{"), "'<': the vocabulary writes this as '', as it does '{'; must be"),
        ("fallback", ("a", "<extra_id_100>"), "'<extra_id_100>': <extra_id_100>: no such sentinel"),
        ("lacking", ("good", "not_good"), "'not_good': the vocabulary writes this as 'notgood';"),
        (
            "fallback",
            ("한", "\u1112\u1161\u11ab"),
            "'\u1112\u1161\u11ab': the vocabulary writes this as '한'",
        ),
    ],
)
def test_labels_that_change_are_refused_with_both_spellings(vocabularies, kind, labels, message):
    config = local(vocabularies[kind], train="none", labels=labels)
    with pytest.raises(DataError, match="^" + re.escape(f"task.labels = {message}")):
        checked(config)
    if "extra_id" not in message:
        checked(dataclasses.replace(config, vocabulary="bytes"))


def test_labels_that_are_cut_off_are_refused():
    config = local("bytes", train="none", labels=("no", "perhaps"), target_length=8)
    checked(config)
    with pytest.raises(
        ConfigError, match=r"task.target_length = 7: must be at least 8 for the lab"
    ):
        checked(dataclasses.replace(config, target_length=7))


def test_targets_that_change_are_counted_and_shown(vocabularies, tmp_path):
    outs = ["the river", "a < b", "a  b", "{ senate }", " peace ", "river ２", "a\nb"]
    rows = write(tmp_path / "rows.jsonl", [{"in": "of <", "out": out} for out in outs])
    files = {"train": rows, "validation": rows, "test": rows, "metrics": ("accuracy",)}

    config = local(vocabularies["lacking"], **files)
    (found,), (held_out,) = examine(config), evaluation_sets(config, "validation")
    (test,) = look_through(config, ("test",))
    assert test.part.split == "test"
    for losses in (found.losses, held_out.losses, test.losses):
        assert losses.unknown_inputs == Tally(7, [("of <", "of")] * 3)
        assert losses.unknown_targets.count == 3
        changed = [("a < b", "a  b"), ("a  b", "a b"), ("{ senate }", "senate")]
        assert losses.changed_targets == Tally(5, changed)
        assert losses.sentences() == [
            "7 inputs hold characters that the vocabulary lacks: "
            + "; ".join(["'of <' -> 'of'"] * 3),
            "3 targets hold characters that the vocabulary lacks: 'a < b' -> 'a  b'; "
            "'{ senate }' -> 'senate'; 'river ２' -> 'river'",
            "5 targets are changed by the vocabulary, and compared as changed: 'a < b' -> 'a  b'; "
            "'a  b' -> 'a b'; '{ senate }' -> 'senate'",
        ]
    written = ["the river", "a  b", "a b", "senate", "peace", "river", "a b"]
    assert held_out.references == written
    assert [pair.target for pair in held_out.pairs] == outs
    assert measure(held_out, written) == {"accuracy": 1.0}

    (held_out,) = evaluation_sets(local(vocabularies["fallback"], **files), "validation")
    assert held_out.losses.unknown_targets.count == 0
    assert held_out.losses.changed_targets == Tally(
        3, [("a  b", "a b"), ("river ２", "river 2"), ("a\nb", "a b")]
    )
    (held_out,) = evaluation_sets(local("bytes", **files), "validation")
    assert held_out.losses.sentences() == []
    assert held_out.references == [out.strip() for out in outs]


def test_long_texts_are_shown_where_they_change():
    tally = Tally()
    tally.add("x" * 100 + "<" + "y" * 100, "x" * 100 + "y" * 100)
    tally.add("short <", "short")
    assert str(tally) == (
        f"'…{'x' * 10}<{'y' * 29}…' -> '…{'x' * 10}{'y' * 30}…'; 'short <' -> 'short'"
    )


def test_targets_too_long_to_be_written_are_counted(tmp_path):
    rows = [{"in": "a", "out": "x" * n} for n in (6, 7, 8, 9)]
    config = local("bytes", validation=write(tmp_path / "rows.jsonl", rows), target_length=8)
    (held_out,) = evaluation_sets(config, "validation")
    assert held_out.cut_targets == 2
    assert [len(ids) for ids in held_out.targets] == [7, 8, 8, 8]
    assert held_out.references == ["x" * n for n in (6, 7, 8, 9)]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("target", ["?", "… — …", "👍"])
def test_a_target_without_a_word_for_rouge_is_named_with_its_line(tmp_path, split, target):
    rows = [{"in": "a", "out": "река"}, {"in": "b", "out": target}]
    config = local("bytes", **{split: write(tmp_path / "rows.jsonl", rows)})
    message = rf"rows.jsonl, line 2: target {target!r} holds no word, a letter or digit at least"
    with pytest.raises(DataError, match=re.escape(message)):
        examine(config) if split == "train" else look_through(config, (split,))
    other = dataclasses.replace(config, metrics=("sequence_accuracy",))
    assert (examine(other) or look_through(other, (split,))) != []


@pytest.mark.parametrize(
    ("kind", "metric", "target", "message"),
    [
        ("lacking", "rouge1", "река", "target 'река' has no word that the vocabulary can write"),
        (
            "lacking",
            "pearson",
            "3.8",
            "number '3.8' is written '' in the 16 tokens of task.target_",
        ),
        (
            "digits",
            "pearson",
            "-3.8",
            "number '-3.8' is written '3.8' in the 16 tokens of task.targ",
        ),
        (
            "bytes",
            "spearman",
            "0.12345678901234",
            "number '0.12345678901234' is written '0.12345678",
        ),
    ],
)
def test_a_target_that_none_could_get_right_is_named(
    vocabularies, tmp_path, kind, metric, target, message
):
    path = write(tmp_path / "rows.jsonl", [{"in": "a", "out": target}])
    config = local(
        vocabularies[kind], train=path, validation=path, metrics=(metric,), target_length=16
    )
    with pytest.raises(DataError, match=f"rows.jsonl, line 1: {re.escape(message)}"):
        evaluation_sets(config, "validation")
    # What is only learned from is counted.
    (found,) = examine(config)
    assert found.cut_targets + found.losses.changed_targets.count == 1


TARGETS = (
    "the river of peace",
    "Река поднялась, мост закрыт.",
    "a < b {c} ~ 5",
    "½ cup… ２ of\ttea\nand  milk ",
    "한국어 문장",
    "星２つ 星５つ",
    "<extra_id_0> ferry <extra_id_1> bay",
    "▁ <unk> </s> <0x41>",
)


def oracle(config):
    """What a model is measured as that writes all targets as the vocabulary can; None where the run
    is refused."""
    try:
        checked(config)
        sets = evaluation_sets(config, "validation")
    except ConfigError:
        return None
    vocabulary = load_vocabulary(config)
    found = {}
    for examples in sets:
        written = [vocabulary.text(vocabulary.tokens(pair.target)) for pair in examples.pairs]
        found |= measure(examples, written)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [task.name for task in TASKS.values() if task.name != "ax"])
def test_an_oracle_is_perfect_in_every_task_or_the_run_is_refused(
    vocabularies, tmp_path, name, kind
):
    task = TASKS[name]
    rng = random.Random(0)
    rows = []
    for i in range(40):
        row = {column: f"text {i}" for column in task.columns}
        if "speaker" in row:
            row |= {"speaker": ["A"], "utt": ["text"]}
        if name == "sotu_year":
            row |= {"text": f"in the year {1800 + i}"}
        elif name == "stsb":
            row[task.target] = str(5 * rng.random())
        elif task.labels:
            row[task.target] = i % len(task.labels)
        else:
            row[task.target] = f"the river {rng.choice(TARGETS)}"
        rows.append(row)
    for part in task.part_names("validation"):
        write(tmp_path / f"{part.removeprefix(task.name)}.jsonl", rows)
    config = TaskConfig(
        name,
        validation=f"{tmp_path}/{{part}}.jsonl",
        vocabulary=vocabularies[kind],
        extra_ids=100,
    )
    found = oracle(config)
    if kind == "lacking":
        # It has no digits and no "_".
        refused = name in ("stsb", "mrpc", "qqp", "qnli", "rte", "wnli")
        assert (found is None) == refused
    else:
        assert found is not None
    if found is not None:
        assert found == pytest.approx(dict.fromkeys(task.metrics, 1.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_an_oracle_is_perfect_in_every_metric_or_the_run_is_refused(
    vocabularies, tmp_path, metric, kind
):
    """With any two texts as labels where they are needed; else with all of them."""
    path = tmp_path / "rows.jsonl"
    config = local(vocabularies[kind], validation=str(path), metrics=("accuracy",))
    if metric in ("f1", "matthews"):
        sets = [
            {"labels": pair, "metrics": (metric,)}
            for pair in itertools.pairwise(map(str.strip, TARGETS))
        ]
    else:
        sets = [{"metrics": (metric,)}]
    refused = 0
    for settings in sets:
        numbers = ("3", "2.5", "-4", "１.5")
        texts = numbers if metric in ("pearson", "spearman") else settings.get("labels", TARGETS)
        write(path, [{"in": "a", "out": text} for text in texts])
        found = oracle(dataclasses.replace(config, **settings))
        refused += found is None
        assert found is None or found == pytest.approx({metric: 1.0})
    if kind == "bytes":
        assert refused == 0
    if kind == "lacking":
        assert refused == (0 if "accuracy" in metric else len(sets))
