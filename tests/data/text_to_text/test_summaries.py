"""Summaries: T5's inputs and targets by value."""

import pytest
import tensorflow_datasets as tfds
from sentences import pair

from spade_jax.data.text_to_text.formats import RowError
from spade_jax.data.text_to_text.summaries import SUMMARIES


@pytest.mark.parametrize("task", SUMMARIES, ids=lambda task: task.name)
def test_versions_of_summaries_are_those_of_tfds(task):
    name, version = task.tfds.split(":")
    name, _, config = name.partition("/")
    builder = tfds.builder_cls(name)
    configs = {config.name: str(config.version) for config in builder.BUILDER_CONFIGS}
    assert version == (configs[config] if config else str(builder.VERSION))


@pytest.mark.parametrize(
    ("name", "document", "summary"),
    [
        ("cnn_dailymail", "article", "highlights"),
        ("arxiv", "article", "abstract"),
        ("pubmed", "article", "abstract"),
        ("multi_news", "document", "summary"),
    ],
)
def test_summaries(name, document, summary):
    row = {document: "One.\nTwo.", summary: "Both.\nOf them.", "id": "x"}
    assert pair(name, row) == ("summarize: One.\nTwo.", "Both.\nOf them.")
    with pytest.raises(RowError, match=f"column '{summary}' is empty"):
        pair(name, {**row, summary: ""})
    assert pair(name, {document: "One."}, labelled=False) == ("summarize: One.", "")


def test_splits_of_summaries():
    for task in SUMMARIES:
        validation = "val" if task.name == "media_sum" else "validation"
        assert task.splits == {"train": ("train",), "validation": (validation,), "test": ("test",)}
        assert (task.labels, task.submission, task.prefix) == ((), (), "summarize: ")


def test_turns_of_a_dialogue_stand_behind_their_speakers():
    row = {
        "speaker": ["BALDWIN", "Dr. ROE", "BALDWIN"],
        "utt": ["Good evening.", "Hello.", "So?"],
        "summary": "They meet.",
    }
    assert pair("media_sum", row) == (
        "summarize: BALDWIN: Good evening. Dr. ROE: Hello. BALDWIN: So?",
        "They meet.",
    )


@pytest.mark.parametrize(
    ("speakers", "turns"),
    [
        (["A", "B"], ["Good evening."]),
        (["A"], ["Good evening.", "Hello."]),
        ("A", "Good evening."),
        (["A"], "H"),
        ("A", ["H"]),
        (["A", None], ["Good evening.", "Hello."]),
        (["A", "B"], ["Good evening.", 7]),
    ],
)
def test_a_dialogue_that_is_none(speakers, turns):
    message = "^columns 'speaker' and 'utt' must be lists of equally many texts$"
    with pytest.raises(RowError, match=message):
        pair("media_sum", {"speaker": speakers, "utt": turns, "summary": "They meet."})


@pytest.mark.parametrize("column", ["speaker", "utt"])
def test_a_dialogue_without_words(column):
    row = {"speaker": ["A"], "utt": ["Hello."], "summary": "They meet.", column: []}
    with pytest.raises(RowError, match=f"^column '{column}' is empty$"):
        pair("media_sum", row)
