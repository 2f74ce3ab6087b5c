"""The authors' checkpoints as folders of runs, and back."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from spade_jax.config import EncoderDecoderConfig, RunError, of_kind, require
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.files import check_folder
from spade_jax.interop import names
from spade_jax.interop.authors.config import model_config
from spade_jax.interop.authors.convert import our_id, to_ours, to_theirs
from spade_jax.interop.authors.files import read_checkpoint, write_checkpoint
from spade_jax.interop.authors.pairs import BOS_ID, EOS_ID, PAD_ID
from spade_jax.interop.authors.report import Report
from spade_jax.interop.authors.their_config import authors_config
from spade_jax.interop.run_folder import KEPT, ORIGIN, Words, write_run
from spade_jax.interop.source import Source
from spade_jax.interop.tensor_files import read_tensors
from spade_jax.runs.open import open_run
from spade_jax.stored import read_json

_LAYOUT = "the authors'"
_IDS = {"bos_token_id": BOS_ID, "pad_token_id": PAD_ID, "eos_token_id": EOS_ID}


def start(
    checkpoint: Path,
    output: Path,
    *,
    vocabulary: str,
    extra_ids: int = 0,
    input_length: int | None = None,
    allow_left: Sequence[str] = (),
) -> tuple[Report, list[str]]:
    """Makes a run's folder of an encoder-decoder of the authors'.

    Args:
      vocabulary: "bytes", or the path of a SentencePiece model, with our ids or with theirs.
      extra_ids: sentinels at its end.
      input_length: the most tokens of an input; None is their `max_position_embeddings`.
      allow_left: as of `to_ours`.

    Returns:
      What became of each array, and what else is to be known, a sentence each.

    Raises:
      ConfigError: settings that have no counterpart, or a vocabulary that does not fit.
      RunError: what cannot be read, or is not what its settings say.
    """
    check_folder(output, "--output")
    config, weights, kind = read_checkpoint(checkpoint)
    if kind != "encoder-decoder":
        raise RunError(
            f"{checkpoint}: is a language model, whose words are of fairseq's dictionary; must be "
            "an encoder-decoder (in Python, spade_jax.interop.authors reads both)"
        )
    model = of_kind(model_config(config, weights.shapes), EncoderDecoderConfig)
    ids = {name: _id(config, name, default) for name, default in _IDS.items()}
    pad_id = ids["pad_token_id"]
    imported = to_ours(weights, model, allow_left=allow_left, pad_id=pad_id)
    length = model.decoder.max_positions if input_length is None else input_length
    assert length is not None
    with tempfile.TemporaryDirectory() as folder:
        words = Words(_with_our_ids(vocabulary, Path(folder), pad_id), extra_ids)
        write_run(
            output,
            model,
            names.by_group(imported.params, model),
            vocabulary=words.vocabulary,
            extra_ids=extra_ids,
            input_length=length,
            kept=imported.kept,
            origin={"layout": _LAYOUT, "config": config},
        )
        end = load_vocabulary(words).eos_id
    lines = [
        f"{output}: an encoder-decoder of {model.d_model} features; encoder "
        f"{model.encoder.layers!r}, decoder {model.decoder.layers!r}.",
        *imported.report.notes,
    ]
    expected = our_id(ids["eos_token_id"], pad_id)
    if end != expected:
        lines.append(
            f"The vocabulary ends texts with token {end}, and the weights with {expected}."
        )
    first = config.get("decoder_start_token_id")
    if isinstance(first, int) and our_id(first, pad_id) != 0:
        lines.append(
            f"Their decoder begins with token {first}, ours with padding: what is decoded before "
            "any fine-tuning differs."
        )
    return imported.report, lines


def export(
    workdir: Path,
    output: Path,
    *,
    origin: Path | None = None,
    form: Literal["torch", "safetensors"] = "torch",
    raw_c: bool = False,
) -> list[str]:
    """Writes the parameters of a run as a checkpoint of the authors'.

    Args:
      origin: the folder that `start` made, whose kept arrays and settings are taken; None is the
        run's own.
      form: as of `write_checkpoint`.
      raw_c: as of `to_theirs`.

    Returns:
      What was done, a sentence each.

    Raises:
      ConfigError: no run is there, or it is of a model that the authors lack.
      RunError: what cannot be read.
    """
    check_folder(output, "--output")
    run = open_run(workdir, "--checkpoint")
    settings = authors_config(run.model, "encoder-decoder")
    folder = workdir if origin is None else origin
    told = read_json(folder / ORIGIN, dict, advice="leave it out", error=RunError)
    if origin is not None:
        require(
            told is not None and told.get("layout") == _LAYOUT,
            "--origin",
            str(origin),
            "must be a folder that from_authors has made",
        )
    kept: Mapping[str, np.ndarray] = {}
    if told is not None and told.get("layout") == _LAYOUT:
        kept = dict(read_tensors(folder / KEPT))
        theirs = dict(told.get("config", {}))
        named = {name: theirs[name] for name in (*_IDS, "decoder_start_token_id") if name in theirs}
        settings = theirs | settings | named
    weights = to_theirs(dict(Source(run)), kept, run.model, raw_c=raw_c)
    write_checkpoint(output, settings, weights, form=form)
    return [
        f"{output}: {len(weights)} arrays, of {run.why}.",
        "What came from the authors and has not changed is as it came."
        if kept
        else f"Our token 0, padding, is their {PAD_ID}, and our {PAD_ID} is their 0.",
    ]


def _id(config: Mapping[str, Any], name: str, default: int) -> int:
    value = config.get(name)
    value = default if value is None else value
    right = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    require(right, name, value, "must be the id of a token")
    return value


def _with_our_ids(vocabulary: str, folder: Path, pad_id: int) -> str:
    """The path of a SentencePiece model whose padding is at 0: itself, or, of one that has their
    ids, a copy with tokens 0 and `pad_id` exchanged."""
    if vocabulary == "bytes" or pad_id == 0 or not Path(vocabulary).is_file():
        return vocabulary  # What is wrong is said where it is read.
    import sentencepiece.sentencepiece_model_pb2

    # What protobuf makes at run time, type checkers do not see.
    proto: Any = sentencepiece.sentencepiece_model_pb2
    model = proto.ModelProto()
    try:
        model.ParseFromString(Path(vocabulary).read_bytes())
    except Exception:  # Protobuf's own kinds.
        return vocabulary
    own = model.trainer_spec
    if own.pad_id != pad_id or pad_id >= len(model.pieces):
        return vocabulary
    first, second = type(model.pieces[0])(), type(model.pieces[0])()
    first.CopyFrom(model.pieces[0])
    second.CopyFrom(model.pieces[pad_id])
    model.pieces[0].CopyFrom(second)
    model.pieces[pad_id].CopyFrom(first)
    for name in ("pad_id", "bos_id", "eos_id", "unk_id"):
        setattr(own, name, our_id(getattr(own, name), pad_id))
    path = folder / Path(vocabulary).name
    path.write_bytes(model.SerializeToString())
    return str(path)
