"""Trains a SentencePiece vocabulary: `python -m spade_jax.data.train_vocabulary --help`.

TensorFlow and SentencePiece are imported where they are needed, so that help comes at once.
"""

import argparse
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

from spade_jax.config import MAX_VOCABULARY, ConfigError, require
from spade_jax.data.config import DataError, SourceConfig
from spade_jax.files import check_output, open_output
from spade_jax.parsing import PathOption, whole_number

# SentencePiece learns from "sentences" and silently leaves out longer ones.
_SENTENCE_BYTES = 2048


def train_vocabulary(
    source: SourceConfig,
    output: Path,
    size: int,
    *,
    model_type: str = "unigram",
    max_bytes: int = 200_000_000,
    overwrite: bool = False,
) -> int:
    """Writes a SentencePiece model with pad 0, eos 1, unk 2, no bos, and a token for each byte.

    Args:
      source: documents; its training split is read.
      output: path of the `.model` file.
      size: tokens in the file; sentinels (`data.extra_ids`) come on top.
      model_type: "unigram" or "bpe"; or "word", the words between spaces as they stand, the
        most frequent first, of which there may be fewer. It has no bytes: words that it lacks,
        and neighbours among them together, are one unk.
      max_bytes: of text to learn from; what comes after is not read.
      overwrite: replace `output` where it exists.

    Returns:
      How many tokens the file has.

    Raises:
      ConfigError: `output` cannot be written.
      DataError: the source cannot be read, `output` exists, or the text does not allow for that
        many tokens.
    """
    import sentencepiece
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    words = model_type == "word"
    require(
        words or size > 259, "--size", size, "must be above 259: 3 special tokens and 256 bytes"
    )
    check_output(output, "--output")
    if output.is_file() and not overwrite:
        raise DataError(f"--output = {str(output)!r}: exists; name another, or say --overwrite")
    model = io.BytesIO()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            sentences = _read(source, max_bytes, progress)
            progress.add_task(f"training {size} tokens")
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=model,
                model_type=model_type,
                vocab_size=size,
                pad_id=0,
                eos_id=1,
                unk_id=2,
                bos_id=-1,
                byte_fallback=not words,
                max_sentence_length=2 * _SENTENCE_BYTES,
                num_threads=os.cpu_count() or 1,
                minloglevel=2,
                hard_vocab_limit=not words,
                normalization_rule_name="identity" if words else "nmt_nfkc",
            )
    except RuntimeError as error:  # The only kind that SentencePiece raises.
        reason = str(error).strip().split("] ")[-1]
        raise DataError(f"--size = {size}: SentencePiece cannot train it: {reason}") from None
    try:
        with open_output(output, "wb") as file:
            file.write(model.getvalue())
    except OSError as error:
        raise DataError(f"--output = {str(output)!r}: {error.strerror}") from None
    trained: Any = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return trained.get_piece_size()


def _read(source: SourceConfig, max_bytes: int, progress: Any) -> list[bytes]:
    """The sentences of a source's training split, up to so many bytes."""
    from spade_jax.data.sources import iterate_documents

    reading = progress.add_task("reading text")
    sentences: list[bytes] = []
    total = 0
    for document in iterate_documents(source, "train"):
        sentences += _sentences(document)
        total += len(document)
        progress.update(reading, description=f"reading text: {total / 1e6:.1f} MB")
        if total >= max_bytes:
            break
    progress.stop_task(reading)
    return sentences


def _sentences(document: bytes) -> Iterator[bytes]:
    """The lines of a UTF-8 document, long ones cut, at spaces where there are any."""
    for line in document.splitlines():
        while len(line) > _SENTENCE_BYTES:
            cut = line.rfind(b" ", 1, _SENTENCE_BYTES)
            if cut < 0:
                cut = _SENTENCE_BYTES
                while line[cut] & 0xC0 == 0x80:  # Not within a character.
                    cut -= 1
            yield line[:cut]
            line = line[cut:].lstrip(b" ")
        if line:
            yield line


def main(arguments: list[str] | None = None) -> int:
    """Reads the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m spade_jax.data.train_vocabulary",
        description="Trains a SentencePiece vocabulary on text, for data.vocabulary.",
        epilog="Example: python -m spade_jax.data.train_vocabulary --input='books/*.txt.gz' "
        "--kind=text --output=books.model --size=8000",
    )
    kinds = get_args(get_type_hints(SourceConfig)["kind"])
    parser.add_argument("--kind", choices=kinds, default="text", help="as data.sources.kind")
    parser.add_argument(
        "--input", default="", help="paths, globs or TFDS splits, separated by commas"
    )
    parser.add_argument("--field", default="text", help="field or feature that holds the text")
    parser.add_argument("--name", help="of TFDS: name and version, such as c4/en:3.1.0")
    parser.add_argument("--data_dir", help="of TFDS: directory the data set was prepared in")
    parser.add_argument(
        "--output", action=PathOption, required=True, help="the .model file to write"
    )
    parser.add_argument(
        "--size",
        action=whole_number(1, MAX_VOCABULARY),
        default=32000,
        help="tokens, without sentinels",
    )
    parser.add_argument("--model_type", choices=["unigram", "bpe", "word"], default="unigram")
    parser.add_argument(
        "--max_bytes",
        action=whole_number(1, 2**50),
        default=200_000_000,
        help="of text to learn from",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --output")
    try:
        options = parser.parse_args(arguments)
        source = SourceConfig(
            kind=options.kind,
            train=options.input,
            field=options.field,
            name=options.name,
            data_dir=options.data_dir,
        )
        replaces = options.output.is_file()
        tokens = train_vocabulary(
            source,
            options.output,
            options.size,
            model_type=options.model_type,
            max_bytes=options.max_bytes,
            overwrite=options.overwrite,
        )
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{'replaced' if replaces else 'wrote'} {options.output}: {tokens} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
