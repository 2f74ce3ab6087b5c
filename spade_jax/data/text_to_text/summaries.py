"""Summaries of news, papers and interviews, as T5 and LongT5 write them."""

from typing import Any

from spade_jax.data.text_to_text.formats import Row, RowError, prefixed, text
from spade_jax.data.text_to_text.task import TextToText


def dialogue(row: Row) -> str:
    """MediaSum's turns, each behind its speaker: `summarize: BALDWIN: Good evening. …`."""
    speakers, turns = row["speaker"], row["utt"]
    if not _is_texts(speakers) or not _is_texts(turns) or len(speakers) != len(turns):
        raise RowError("columns 'speaker' and 'utt' must be lists of equally many texts")
    return "summarize: " + " ".join(f"{s}: {t}" for s, t in zip(speakers, turns))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _summary(
    name: str, document: str, summary: str, tfds: str, validation: str = "validation", **more: Any
) -> TextToText:
    settings: dict[str, Any] = {
        "write_input": prefixed("summarize: ", document),
        "may_be_empty": (document,),
    }
    return TextToText(
        name,
        more.pop("columns", (document,)),
        summary,
        write_target=text,
        metrics=("rouge1", "rouge2", "rougeL", "rougeLsum"),
        tfds=tfds,
        splits={"train": ("train",), "validation": (validation,), "test": ("test",)},
        prefix="summarize: ",
        **settings | more,
    )


SUMMARIES = (
    _summary("cnn_dailymail", "article", "highlights", "cnn_dailymail:3.4.0"),
    _summary("arxiv", "article", "abstract", "scientific_papers/arxiv:1.1.1"),
    _summary("pubmed", "article", "abstract", "scientific_papers/pubmed:1.1.1"),
    _summary("multi_news", "document", "summary", "multi_news:2.1.0"),
    _summary(
        "media_sum",
        "utt",
        "summary",
        "media_sum:1.0.0",
        validation="val",
        columns=("speaker", "utt"),
        write_input=dialogue,
        may_be_empty=(),
    ),
)
