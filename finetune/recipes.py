"""T5's and LongT5's settings for fine-tuning, which the files in `configs/finetune` share.

Adafactor at a constant rate of 0.001, 128 sequences a batch, dropout 0.1 (Raffel et al. 2020; Guo
et al. 2022). How long, and how often to evaluate, is ours.
"""

import dataclasses

import ml_collections

from finetune.config import FinetuneConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.task_config import TaskConfig
from spade_jax.decoding.config import BeamConfig
from spade_jax.training.config import OptimizerConfig, TrainConfig

_ADAFACTOR = OptimizerConfig(
    name="adafactor",
    learning_rate=1e-3,
    schedule="constant",
    warmup_steps=0,
    weight_decay=0.0,
    clip_norm=None,
)


def _recipe(task: TaskConfig, train: TrainConfig, decoding: BeamConfig) -> FinetuneConfig:
    return FinetuneConfig(
        init_from="runs/base",
        task=task,
        train=train,
        optimizer=_ADAFACTOR,
        decoding=decoding,
        dropout_rate=0.1,
    )


def glue(task: str, steps: int) -> ml_collections.ConfigDict:
    """A task of GLUE, or "glue" for all of them: short texts, several to a row."""
    every = max(steps // 20, 1)
    return to_config_dict(
        _recipe(
            TaskConfig(task, input_length=512, target_length=84, pack=True),
            TrainConfig(
                steps=steps,
                batch_size=128,
                eval_every=every,
                checkpoint_every=every,
                keep=1,
                best_metric="score",
            ),
            BeamConfig(),
        )
    )


def summarization(task: str, input_length: int, steps: int) -> ml_collections.ConfigDict:
    """A summarisation data set: long inputs, beam search with 4 beams."""
    config = _recipe(
        TaskConfig(task, input_length=input_length, target_length=512, shuffle_buffer=512),
        TrainConfig(
            steps=steps,
            batch_size=128,
            eval_every=1000,
            checkpoint_every=1000,
            keep=1,
            best_metric="rougeLsum",
        ),
        BeamConfig(beams=4, length_penalty=0.6),
    )
    return to_config_dict(dataclasses.replace(config, eval_examples=512))
