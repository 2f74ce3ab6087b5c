"""The authors' weights as our parameters, and back."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spade_jax.config import ModelConfig, RunError
from spade_jax.interop.authors import state_space
from spade_jax.interop.authors.pairs import (
    EXTRA_POSITIONS,
    PAD_ID,
    POSITIONS,
    READOUT,
    Kind,
    kind_of,
    table,
)
from spade_jax.interop.authors.report import Report, compare, our_shapes
from spade_jax.interop.authors.their_config import authors_config, kernel_length

# Beside arrays under the authors' names, `kept` has under these what no array of theirs says.
_PAD, _TIED, _DTYPE, _DIGEST = "ids/pad", "tied/", "dtype/", "digest/"


@dataclasses.dataclass(frozen=True, eq=False)
class Imported:
    """What a state dict became.

    Attributes:
      params: float32, by the names of layers; of a language model those of its decoder.
      kept: what has no place among them, for `to_theirs`.
      report: of all names.
    """

    params: dict[str, np.ndarray]
    kept: dict[str, np.ndarray]
    report: Report


def our_id(their_id: int, pad_id: int = PAD_ID) -> int:
    """Our id of a token: padding is at 0, and what was there at theirs; and their id of ours."""
    return {0: pad_id, pad_id: 0}.get(their_id, their_id)


def to_ours(
    weights: Mapping[str, np.ndarray],
    model: ModelConfig,
    *,
    allow_left: Sequence[str] = (),
    pad_id: int = PAD_ID,
) -> Imported:
    """Parameters of ours from a state dict of theirs.

    Args:
      weights: arrays by their names; each is read once or twice.
      model: as of `model_config`.
      allow_left: regular expressions of names that need no place; they go into `kept`.
      pad_id: their id of padding, which is exchanged with ours.

    Raises:
      RunError: names are missing or left, shapes are another model's, arrays that should be equal
        are not, or a C~ has no C.
    """
    kind = kind_of(weights)
    # `Tensors` know the shapes without reading.
    shapes = getattr(weights, "shapes", None) or {n: a.shape for n, a in weights.items()}
    report = compare(shapes, kind, model, pad_id=pad_id)
    report.check(allow_left)
    known = table(kind, model, pad_id=pad_id)
    params, kept = {}, {_PAD: np.asarray(pad_id)}
    for pair in known.pairs:
        array = weights[pair.theirs]
        if array.dtype != np.float32:
            kept[_DTYPE + pair.theirs] = np.zeros(0, array.dtype)
        params[pair.ours] = np.ascontiguousarray(pair.how.there(array), np.float32)
        if pair.how is POSITIONS:
            kept[pair.theirs] = np.array(array[:EXTRA_POSITIONS])
    for alias, name in known.tied.items():
        if alias in shapes:
            if not np.array_equal(weights[alias], weights[name]):
                raise RunError(
                    f"{alias}: differs from {name} in the file; must be equal, for the authors "
                    "tie them"
                )
            kept[_TIED + alias] = np.zeros(0, np.float32)
    for name in (*report.kept, *report.left):
        if name not in known.tied:
            kept[name] = np.array(weights[name])
    notes = [f"Their token {pad_id}, padding, is our 0, and their 0 is our {pad_id}."]
    for pair in known.pairs:
        if pair.how is READOUT:
            notes.append(_untilded(pair.theirs, pair.ours, known.lengths[pair.ours], params, kept))
    return Imported(params, kept, dataclasses.replace(report, notes=tuple(notes)))


def to_theirs(
    params: Mapping[str, Any],
    kept: Mapping[str, np.ndarray],
    model: ModelConfig,
    *,
    raw_c: bool = False,
) -> dict[str, np.ndarray]:
    """A state dict of theirs from parameters of ours.

    What came from theirs and is unchanged since is equal to the bit; so is C~ where neither C nor
    what the discrete A is made of has changed. Else C~ is computed, with L the longest kernel.

    Args:
      params: by the names of layers, numpy or JAX arrays.
      kept: as `to_ours` gave it; empty for a model that began with us.
      raw_c: write C itself with L = 0, of which their first forward makes C~.

    Raises:
      ConfigError: the authors' code has no such model.
      RunError: parameters that are missing, too many, of other shapes or not finite.
    """
    has_encoder = any(name.startswith("encoder/") for name in params)
    kind: Kind = "encoder-decoder" if has_encoder else "language-model"
    authors_config(model, kind)
    longest = kernel_length(model, kind)
    pad_id = int(np.asarray(kept.get(_PAD, PAD_ID)).item())
    known = table(kind, model, pad_id=pad_id)
    _require_params(params, kind, model, [pair.ours for pair in known.pairs])
    found: dict[str, np.ndarray] = {}
    for pair in known.pairs:
        array = pair.how.back(np.asarray(params[pair.ours]))
        if pair.how is POSITIONS and pair.theirs in kept:
            array[:EXTRA_POSITIONS] = kept[pair.theirs]
        if pair.how is READOUT:
            array, length = _tilded(pair.theirs, pair.ours, params, kept, longest, raw_c)
            of_length = kept.get(known.lengths[pair.ours], np.zeros((), np.int64))
            found[known.lengths[pair.ours]] = np.asarray(length, of_length.dtype)
        dtype = kept.get(_DTYPE + pair.theirs, array).dtype
        found[pair.theirs] = np.ascontiguousarray(array, dtype)
    for alias, name in known.tied.items():
        if _TIED + alias in kept:
            found[alias] = found[name]
    return found | {n: a for n, a in kept.items() if n not in found and "/" not in n}


def _require_params(
    params: Mapping[str, Any], kind: Kind, model: ModelConfig, wanted: Sequence[str]
) -> None:
    shapes = our_shapes(model)
    missing = sorted(set(wanted) - params.keys())
    if missing:
        raise RunError(
            f"parameters: {len(missing)} of {len(wanted)} are missing, such as {missing[0]}; must "
            "be all of this model's"
        )
    for name in wanted:
        if tuple(params[name].shape) != tuple(shapes[name]):
            raise RunError(
                f"{name}: is {list(params[name].shape)}, and must be {list(shapes[name])} in this "
                "model"
            )
    left = sorted(params.keys() - set(wanted))
    if left:
        raise RunError(
            f"parameters: {left[0]} is one of {len(left)} that the authors' {kind} has no place for"
        )


def _dynamics(name: str, params: Mapping[str, Any]) -> state_space.Dynamics:
    """name: of our C."""
    own = ("a_log_decay", "a_frequency", "a_low_rank", "log_dt")
    return state_space.Dynamics(*(np.asarray(params[name[: -len("c")] + part]) for part in own))


def _digest(name: str, params: Mapping[str, Any]) -> np.ndarray:
    """SHA-256 of C and of what the discrete A is made of, uint8 [32]."""
    digest = hashlib.sha256()
    for array in (np.asarray(params[name]), *_dynamics(name, params)):
        digest.update(np.ascontiguousarray(array, np.float32).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _untilded(
    theirs: str,
    ours: str,
    length_name: str,
    params: dict[str, np.ndarray],
    kept: dict[str, np.ndarray],
) -> str:
    """Puts C in the place of C~, and keeps C~; says what it found."""
    length = int(kept[length_name].item())
    if length < 0:
        raise RunError(f"{length_name}: is {length} in the file; must be at least 0")
    note = f"{theirs}: is C itself (L = 0)."
    dynamics = _dynamics(ours, params)
    if length:
        kept[theirs] = params[ours]
        params[ours] = state_space.with_tail(params[ours], dynamics, length)
        note = f"{theirs}: is C~ of {length} taps; C was computed in float64."
    kept[_DIGEST + ours] = _digest(ours, params)
    return note


def _tilded(
    theirs: str,
    ours: str,
    params: Mapping[str, Any],
    kept: Mapping[str, np.ndarray],
    longest: int,
    raw_c: bool,
) -> tuple[np.ndarray, int]:
    """C~ or C, and its L. longest: of a C~ that is computed."""
    c = np.asarray(params[ours])
    if raw_c:
        return c, 0
    before = kept.get(_DIGEST + ours)
    if before is not None and np.array_equal(before, _digest(ours, params)):
        return kept.get(theirs, c), int(kept[theirs[: -len("C")] + "L"].item())
    return state_space.without_tail(c, _dynamics(ours, params), longest), longest
