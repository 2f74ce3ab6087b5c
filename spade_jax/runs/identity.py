"""Whether the checkpoints in a workdir are those of the run that is started there."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from spade_jax.config import ConfigError, from_dict
from spade_jax.ops.attention.dropout import NUMBERS_VERSION
from spade_jax.runs.checkpoints import Checkpoints

# Settings that a second start in the same workdir may change: no update depends on them. With
# another mesh the sums of a batch are taken in another order, and equal to rounding only.
MAY_CHANGE = (
    "train.eval_every",
    "train.eval_batches",
    "train.checkpoint_every",
    "train.keep",
    "train.patience",
    "train.log_every",
    "train.profile_steps",
    "mesh.",
    # The position in the data knows what is in it.
    "data.cache",
)
# What does not say what is computed, but how: equal to rounding, too.
_EXECUTION = ("chunk_length", "implementation", "remat", "scan_layers")


def check_same_run(
    checkpoints: Checkpoints,
    config: Any,
    vocabulary_digest: str,
    may_change: tuple[str, ...] = MAY_CHANGE,
    *,
    trains: bool = True,
) -> None:
    """Raises ConfigError where the workdir's checkpoints are another configuration's, or would go
    on with other random numbers than they began with.

    Args:
      config: the run's, a dataclass. A setting that there was not when the checkpoints were saved
        had its default.
      trains: it does more than evaluate.
    """
    if checkpoints.newest is None:
        return
    about = checkpoints.about()
    stored = from_dict(type(config), about["settings"], f"{checkpoints.directory}: config")
    before, now = _compared(stored), _compared(config)
    if looks_at_no_end(dataclasses.asdict(config)):
        may_change += ("train.steps",)
    differing = [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
        and not name.startswith(may_change)
        and name.rpartition(".")[2] not in _EXECUTION
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ConfigError(
            f"{checkpoints.directory}: holds checkpoints of another configuration: "
            f"{'; '.join(differing[:3])}{more}; use another workdir or the same settings"
        )
    if about["vocabulary"] != vocabulary_digest:
        raise ConfigError(
            f"{checkpoints.directory}: its checkpoints were trained with another vocabulary "
            f"(digest {about['vocabulary'][:12]}) than data.vocabulary now gives (digest "
            f"{vocabulary_digest[:12]}); use another workdir or the same vocabulary file"
        )
    model, began_with = getattr(config, "model", None), about.get("dropout_numbers", 1)
    goes_on = trains and checkpoints.newest < config.train.steps
    if goes_on and model is not None and model.dropout_rate > 0 and began_with != NUMBERS_VERSION:
        raise ConfigError(
            f"{checkpoints.directory}: its run drops attention's probabilities "
            f"(model.dropout_rate = {model.dropout_rate}) by random numbers of version "
            f"{began_with}, and this spade_jax draws those of version {NUMBERS_VERSION}; go on "
            "with the spade_jax that began it, or use another workdir"
        )


def check_same_data(checkpoints: Checkpoints, data: Mapping[str, Mapping[str, str]]) -> str | None:
    """Compares the data that the workdir's checkpoints were trained and evaluated on with today's.

    Args:
      data: for each setting the files that it names, each with a digest of what it holds.

    Returns:
      What to say aloud: that checkpoints of before there were digests cannot be compared. Or None.

    Raises:
      ConfigError: something has changed: numbers of before and after would not compare.
    """
    if checkpoints.newest is None:
        return None
    before = checkpoints.about().get("data")
    if before is None:
        return (
            f"The checkpoint of step {checkpoints.newest} does not tell what its data held: it "
            "could not be compared with what it holds now. Checkpoints from here on do."
        )
    for setting in dict.fromkeys([*before, *data]):
        old, new = before.get(setting, {}), data.get(setting, {})
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) != new.get(name):
                change = (
                    "was not there"
                    if name not in old
                    else "was there"
                    if name not in new
                    else f"held something else (digest {old[name]}; now {new[name]})"
                )
                raise ConfigError(
                    f"{setting}: {name} {change} when the run in {checkpoints.directory.parent} "
                    "was last saved; must be as it was then, or use another workdir"
                )
    return None


def looks_at_no_end(settings: Mapping[str, Any]) -> bool:
    """Whether no update depends on how many there are."""
    return _flat(settings).get("optimizer.schedule") in (
        "constant",
        "inverse_sqrt",
        "rsqrt_decay",
    )


def _compared(config: Any) -> dict[str, Any]:
    """The settings that make a run what it is, by their dotted names."""
    model = getattr(config, "model", None)
    if model is not None:
        config = dataclasses.replace(config, model=model.without_unused_mixers())
    return _flat(dataclasses.asdict(config))


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    if isinstance(settings, Mapping):
        items: Iterable[tuple[Any, Any]] = settings.items()
    elif isinstance(settings, list | tuple):
        items = enumerate(settings)
    else:
        return {prefix: settings}
    flat: dict[str, Any] = {}
    for name, value in items:
        flat |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return flat
