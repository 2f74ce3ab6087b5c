"""GLUE: its nine tasks and the diagnostic set, as T5 writes them."""

import struct
from typing import Any

from spade_jax.data.text_to_text.formats import RowError, label_word, labelled_fields
from spade_jax.data.text_to_text.task import TextToText


def rounded_score(value: Any) -> str:
    """STS-B's similarity, 0 to 5, to the nearest 0.2, as T5 writes it: `3.8`.

    In float32, as T5 does, for ties are common: 3.1 becomes 3.2, but in float64 the float32 that is
    nearest to 3.1 would become 3.0.
    """
    try:
        score = _float32(float(value))
    except (TypeError, ValueError, OverflowError):
        score = -1.0
    if not 0 <= score <= 5:
        raise RowError(f"score {value!r:.60} is not a number from 0 to 5")
    return f"{round(_float32(score * 5)) / 5:.1f}"


def _float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def _glue(
    name: str,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    submission: str | tuple[str, ...],
    metrics: tuple[str, ...] = ("accuracy",),
    **more: Any,
) -> TextToText:
    settings: dict[str, Any] = {
        "target": "label",
        "write_input": labelled_fields(name, columns),
        "write_target": label_word(labels, "label") if labels else rounded_score,
        "tfds": f"glue/{name}:2.0.0",
        "submission": (submission,) if isinstance(submission, str) else submission,
    }
    return TextToText(name, columns, metrics=metrics, labels=labels, **settings | more)


_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_MNLI_LABELS = ("entailment", "neutral", "contradiction")

GLUE = (
    _glue("cola", ("sentence",), ("unacceptable", "acceptable"), "CoLA.tsv", ("matthews",)),
    _glue("sst2", ("sentence",), ("negative", "positive"), "SST-2.tsv"),
    _glue(
        "mrpc",
        _SENTENCES,
        ("not_equivalent", "equivalent"),
        "MRPC.tsv",
        ("f1", "accuracy"),
        aliases={
            "sentence1": ("#1 String",),
            "sentence2": ("#2 String",),
            "label": ("Quality",),
        },
    ),
    _glue(
        "qqp",
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        "QQP.tsv",
        ("f1", "accuracy"),
        aliases={"label": ("is_duplicate",)},
        may_be_empty=("question2",),
        leaves_out_broken=True,
    ),
    _glue(
        "stsb", _SENTENCES, (), "STS-B.tsv", ("pearson", "spearman"), aliases={"label": ("score",)}
    ),
    _glue(
        "mnli",
        ("hypothesis", "premise"),
        _MNLI_LABELS,
        ("MNLI-m.tsv", "MNLI-mm.tsv"),
        aliases={
            "premise": ("sentence1",),
            "hypothesis": ("sentence2",),
            "label": ("gold_label",),
        },
        splits={
            "train": ("train",),
            "validation": ("validation_matched", "validation_mismatched"),
            "test": ("test_matched", "test_mismatched"),
        },
    ),
    _glue("qnli", ("question", "sentence"), _ENTAILMENT, "QNLI.tsv"),
    _glue("rte", _SENTENCES, _ENTAILMENT, "RTE.tsv"),
    _glue("wnli", _SENTENCES, _ENTAILMENT[::-1], "WNLI.tsv"),
)

# GLUE's diagnostic set: written as MNLI's, whose model predicts it (Raffel et al. 2020).
AX = _glue(
    "ax",
    ("hypothesis", "premise"),
    _MNLI_LABELS,
    "AX.tsv",
    aliases={"premise": ("sentence1",), "hypothesis": ("sentence2",)},
    write_input=labelled_fields("mnli", ("hypothesis", "premise")),
    splits={"test": ("test",)},
)
