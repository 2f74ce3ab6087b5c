"""A look at text: documents, and the segments or blocks that are made of them."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from spade_jax.data._tensorflow import NumpyIterator
from spade_jax.data.config import (
    SPLITS,
    DataConfig,
    SourceConfig,
    Split,
    TextBlocksConfig,
    TextConfig,
)
from spade_jax.data.masked_text import masked_passage, split_spans
from spade_jax.data.preview.seen import EXAMPLES, Seen, Sequences
from spade_jax.data.sources import DocumentSource, has_split, name_sources
from spade_jax.data.span_corruption import corrupted
from spade_jax.data.vocabulary import Vocabulary, load_vocabulary


def look_at_text(config: TextConfig, limit: int, most_bytes: int | None = None) -> list[Seen]:
    """The first documents of each split of each source.

    Args:
      limit: the most documents of one.
      most_bytes: of text, after which no document of one is begun; None for any number.

    Raises:
      DataError: they cannot be read.
    """
    vocabulary = load_vocabulary(config)
    sets: dict[Split, list[Seen]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        before = [found for other in SPLITS if other != split for found in sets[other]]
        for number, source in enumerate(config.sources):
            if has_split(source, split):
                name = split if len(config.sources) == 1 else f"{split} of data.sources.{number}"
                length = _example_length(config)
                documents = Sequences("documents", "data.input_length", length, are_cut=False)
                seen = Seen(name, "documents", [documents], before)
                _look(seen, source, split, config, vocabulary, limit, most_bytes)
                sets[split].append(seen)
    return [seen for split in SPLITS for seen in sets[split]]


def _look(
    seen: Seen,
    source: SourceConfig,
    split: Split,
    config: TextConfig,
    vocabulary: Vocabulary,
    limit: int,
    most_bytes: int | None,
) -> None:
    """Counts the documents of a split of a source."""
    (documents,) = seen.sequences
    kept: list[list[int]] = []
    read = 0
    for text in _texts(source, split, limit + 1):
        if seen.rows == limit or (most_bytes is not None and read >= most_bytes):
            seen.whole = False
            break
        read += len(text)
        seen.add(text)
        tokens = vocabulary.encode(text.decode("utf-8", "replace"))
        unknown = tokens.count(vocabulary.unk_id)
        if isinstance(config, TextBlocksConfig):
            tokens.append(vocabulary.eos_id)
        documents.add(len(tokens), unknown)
        if sum(map(len, kept)) < EXAMPLES * documents.bound:
            kept.append(tokens)
    seen.notes.append(_made_of(documents.lengths, config))
    seen.examples = list(_examples(kept, config, vocabulary))


def _texts(source: SourceConfig, split: Split, limit: int) -> Iterator[bytes]:
    read = DocumentSource(source)
    dataset = read.get_dataset(split, shuffle=False).take(limit)
    for example in NumpyIterator(dataset, name_sources([read])):
        yield example["text"]


def _example_length(config: TextConfig) -> int:
    """Tokens of text in an example; with several denoisers, in one of the first."""
    if isinstance(config, TextBlocksConfig):
        return config.input_length
    assert isinstance(config, DataConfig)
    return config.denoisers[0].segment_length(config.input_length)


def _made_of(lengths: list[int], config: TextConfig) -> str:
    """What examples come of documents."""
    length, total = _example_length(config), sum(lengths)
    if not isinstance(config, TextBlocksConfig):
        return f"{math.ceil(total / length):,} segments of {length:,} tokens"
    if config.across_documents:
        return f"{math.ceil(total / length):,} blocks of {length:,} tokens"
    blocks = sum(math.ceil(own / length) for own in lengths)
    padding = 1 - total / max(blocks * length, 1)
    return f"{blocks:,} blocks of {length:,} tokens, {padding:.1%} of them padding"


def _examples(
    documents: list[list[int]], config: TextConfig, vocabulary: Vocabulary
) -> Iterator[list[tuple[str, str]]]:
    """The first segments or blocks, as a model reads them."""
    length = _example_length(config)
    apart = isinstance(config, TextBlocksConfig) and not config.across_documents
    texts = documents if apart else [list(itertools.chain(*documents))]
    pieces = (text[i : i + length] for text in texts for i in range(0, len(text), length))
    rng = np.random.default_rng(config.seed)
    for piece in itertools.islice(pieces, EXAMPLES):
        if isinstance(config, TextBlocksConfig):
            yield [("block", vocabulary.decode(piece))]
            continue
        assert isinstance(config, DataConfig)
        tokens = np.array(piece, np.int32)
        inputs, targets = corrupted(tokens, config.denoisers[0], vocabulary.size, rng)
        spans = split_spans(vocabulary, targets).values()
        masked = " ".join(f"[{vocabulary.decode(span)}]" for span in spans)
        yield [("input", masked_passage(vocabulary, inputs)), ("target", masked)]
