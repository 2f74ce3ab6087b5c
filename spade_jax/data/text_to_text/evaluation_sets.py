"""The examples that a model is evaluated on, tokenised."""

import dataclasses

import numpy as np

from spade_jax.data.config import DataError
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.examples import Pair, make_tokenizer, read_pairs
from spade_jax.data.text_to_text.splits import Part, parts
from spade_jax.data.text_to_text.task import Split
from spade_jax.data.text_to_text.vocabulary_coverage import Losses


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """The examples of one part, tokenised.

    Attributes:
      pairs: in the order of the data.
      inputs, targets: int32 token ids, their ends included, cut off where too long.
      cut_inputs, cut_targets: how many were.
      references: the targets, uncut, as the vocabulary writes them: what it changes or lacks, no
        prediction could have right, so that predictions are compared with these.
      losses: what the vocabulary takes from them.
    """

    part: Part
    pairs: list[Pair]
    inputs: list[np.ndarray]
    targets: list[np.ndarray]
    cut_inputs: int
    cut_targets: int
    references: list[str]
    losses: Losses = dataclasses.field(default_factory=Losses)

    @property
    def labelled(self) -> bool:
        return any(pair.target for pair in self.pairs)


def evaluation_sets(
    config: TaskConfig, split: Split, limit: int | None = None
) -> list[EvaluationSet]:
    """The examples of a split, of each task apart.

    Args:
      limit: the most of each, evenly spread over all that there are; None for all.

    Raises:
      DataError: a row that makes no pair.
    """
    sets = []
    for part in parts(config, split):
        pairs = list(read_pairs(part, config))
        secret = sum(not pair.target for pair in pairs)
        if secret not in (0, len(pairs)):
            raise DataError(
                f"task.{split} ({part.name}): {secret} of {len(pairs)} rows have no target; must "
                "be all or none"
            )
        if limit is not None and len(pairs) > limit:
            pairs = [pairs[i * len(pairs) // limit] for i in range(limit)]
        tokenizer = make_tokenizer(config)
        tokens = [tokenizer(pair.input, pair.target) for pair in pairs]
        sets.append(
            EvaluationSet(
                part,
                pairs,
                [np.array(found.inputs, np.int32) for found in tokens],
                [np.array(found.targets, np.int32) for found in tokens],
                tokenizer.cut_inputs,
                tokenizer.cut_targets,
                [found.reference for found in tokens],
                tokenizer.losses,
            )
        )
    return sets
