"""A look at the pairs of texts that a task learns from."""

from spade_jax.data.preview.seen import EXAMPLES, Seen, Sequences
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.examples import make_tokenizer, read_pairs
from spade_jax.data.text_to_text.splits import Part, check_splits, parts
from spade_jax.data.text_to_text.task import SPLITS


def look_at_pairs(config: TaskConfig, limit: int) -> list[Seen]:
    """The first pairs of each part of each split.

    Args:
      config: with its vocabulary.
      limit: the most pairs of one.

    Raises:
      DataError: they cannot be read.
    """
    check_splits(config)
    sets: list[tuple[Part, Seen]] = []
    for split in SPLITS:
        for part in parts(config, split):
            # The parts of MNLI's validation set are no training data of each other.
            before = [
                seen for o, seen in sets if o.task.name == part.task.name and o.split != split
            ]
            sets.append((part, _look(part, config, limit, before)))
    return [seen for _, seen in sets]


def _look(part: Part, config: TaskConfig, limit: int, before: list[Seen]) -> Seen:
    tokenizer = make_tokenizer(config)
    inputs = Sequences("inputs", "task.input_length", config.input_length)
    targets = Sequences("targets", "task.target_length", config.target_length)
    seen = Seen(f"{part.name}, {part.split}", "rows", [inputs, targets], before)
    seen.classes.update(dict.fromkeys(part.task.labels, 0))
    for pair in read_pairs(part, config):
        if seen.rows == limit:
            seen.whole = False
            break
        seen.add(pair.input.encode("utf-8"))
        found = tokenizer(pair.input, pair.target)
        if part.task.labels and pair.target:
            seen.classes[pair.target] += 1
        if len(seen.examples) < EXAMPLES:
            write = tokenizer.vocabulary.text
            seen.examples.append([("input", write(found.inputs)), ("target", write(found.targets))])
    inputs.lengths, inputs.unknown = tokenizer.input_lengths, tokenizer.unknown_inputs
    targets.lengths, targets.unknown = tokenizer.target_lengths, tokenizer.unknown_targets
    return seen
