"""Whether the checkpoints in a workdir are those of the run that is started there."""

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
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
    "train.tracker",
    "train.profile_steps",
    "mesh.",
    "samples",
    # The position in the data knows what is in it.
    "data.cache",
)
# What pre-training and fine-tuning call their data.
_DATA = {"data", "task"}
# With others of these it is another run: its parameters would mean something else, or its optimiser
# would know nothing of them. All else may be changed on purpose (`extend`).
MAKES_ANOTHER_RUN = (
    "model.",
    "data.kind",
    "data.vocabulary",
    "data.extra_ids",
    "data.encoding",
    "data.classes",
    "data.labels",
    "data.alphabet",
    "task.vocabulary",
    "task.extra_ids",
    "optimizer.name",
)
# With others of these the data is read from its beginning.
_MAKES_OTHER_DATA = ("data.", "task.", "train.batch_size")
# What does not say what is computed, but how: equal to rounding, too.
_EXECUTION = ("chunk_length", "implementation", "remat", "scan_layers")


# By setting, its value before and now.
Changes = Mapping[str, tuple[Any, Any]]


def check_same_run(
    checkpoints: Checkpoints,
    config: Any,
    vocabulary_digest: str,
    may_change: tuple[str, ...] = MAY_CHANGE,
    *,
    trains: bool = True,
    extend: bool = False,
) -> Changes:
    """Whether the workdir's checkpoints are this configuration's.

    Args:
      config: the run's, a dataclass. A setting that there was not when the checkpoints were saved
        had its default.
      trains: it does more than evaluate.
      extend: other settings are on purpose, unless they make another run.

    Returns:
      The settings that are changed so, each with its value before and now.

    Raises:
      ConfigError: they are another configuration's, or would go on with other random numbers than
        they began with.
    """
    if checkpoints.newest is None:
        return {}
    about = checkpoints.about()
    if _DATA & about["settings"].keys() != _DATA & {f.name for f in dataclasses.fields(config)}:
        raise ConfigError(
            f"{checkpoints.directory.parent}: is the workdir of another program's run; must be "
            "another"
        )
    stored = from_dict(type(config), about["settings"], f"{checkpoints.directory}: config")
    before, now = _compared(stored), _compared(config)
    if looks_at_no_end(dataclasses.asdict(config)):
        may_change += ("train.steps",)
    changes = {
        name: (before.get(name), now.get(name))
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
        and not name.startswith(may_change)
        and name.rpartition(".")[2] not in _EXECUTION
    }
    another = {name: c for name, c in changes.items() if name.startswith(MAKES_ANOTHER_RUN)}
    if another:
        raise ConfigError(
            f"{checkpoints.directory}: holds checkpoints of another configuration: "
            f"{told(another)}; use the same settings, or another workdir, where "
            f"--config.init_from={checkpoints.directory.parent} begins with its parameters if they "
            "are this model's"
        )
    if changes and not (extend and trains):
        raise ConfigError(
            f"{checkpoints.directory}: holds checkpoints of another configuration: "
            f"{told(changes)}; use the same settings, another workdir, or --extend to go on with "
            "these"
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
    return changes


def told(changes: Changes) -> str:
    """The first three changes, and how many more there are."""
    words = [f"{name} was {before!r} and is {now!r}" for name, (before, now) in changes.items()]
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return f"{'; '.join(words[:3])}{more}"


def reads_other_data(changes: Changes) -> bool:
    """Whether a position in the data means nothing with these changes."""
    return any(name.startswith(_MAKES_OTHER_DATA) for name in changes)


def check_same_data(
    checkpoints: Checkpoints,
    data: Mapping[str, Mapping[str, str]],
    changes: Changes = MappingProxyType({}),
) -> str | None:
    """Compares the data that the workdir's checkpoints were trained and evaluated on with today's.

    Args:
      data: for each setting the files that it names, each with a digest of what it holds.
      changes: settings that are others on purpose; with other data nothing is compared.

    Returns:
      What to say aloud: that checkpoints of before there were digests cannot be compared. Or None.

    Raises:
      ConfigError: something has changed: numbers of before and after would not compare.
    """
    if checkpoints.newest is None or reads_other_data(changes):
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
    flat = _flat(settings)
    endless = flat.get("optimizer.schedule") in ("constant", "inverse_sqrt", "rsqrt_decay")
    return endless and flat.get("optimizer.warmup_share") is None


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
