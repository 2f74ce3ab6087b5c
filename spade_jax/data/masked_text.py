"""Corrupted passages as text for people: what was masked, and what a model puts there."""

from collections.abc import Iterable

from spade_jax.data.vocabulary import Vocabulary


def masked_passage(vocabulary: Vocabulary, input_ids: Iterable[int]) -> str:
    """The passage with `[…]` for each masked span: `Four score and […] years ago`."""
    return _passage(vocabulary, input_ids, {}, "…")


def filled_passage(
    vocabulary: Vocabulary, input_ids: Iterable[int], target_ids: Iterable[int]
) -> str:
    """The passage with the spans of `target_ids` in brackets: `Four score and [seven] years ago`.

    Targets may come from a model and be any ids at all: of a sentinel that comes twice the first
    counts, of one that is missing the brackets are empty.
    """
    return _passage(vocabulary, input_ids, split_spans(vocabulary, target_ids), "")


def split_spans(vocabulary: Vocabulary, target_ids: Iterable[int]) -> dict[int, list[int]]:
    """The tokens behind each sentinel, up to the next sentinel or EOS, by sentinel number."""
    spans: dict[int, list[int]] = {}
    span: list[int] = []  # Tokens before the first sentinel belong to no span.
    for token in map(int, target_ids):
        if token == vocabulary.eos_id:
            break
        index = vocabulary.sentinel_index(token)
        if index is None:
            span.append(token)
        else:
            span = []
            spans.setdefault(index, span)
    return spans


def _passage(
    vocabulary: Vocabulary, input_ids: Iterable[int], spans: dict[int, list[int]], blank: str
) -> str:
    parts: list[str] = []
    kept: list[int] = []
    for token in map(int, input_ids):
        if token == vocabulary.eos_id:
            break
        index = vocabulary.sentinel_index(token)
        if index is None:
            kept.append(token)
        else:
            span = vocabulary.decode(spans.get(index, []))
            parts += [vocabulary.decode(kept), f"[{span or blank}]"]
            kept = []
    return "".join(parts) + vocabulary.decode(kept)
