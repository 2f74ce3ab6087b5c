"""The smallest fine-tuning run with everything in it; files come from the command line."""

from finetune.config import FinetuneConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.task_config import TaskConfig
from spade_jax.training.config import OptimizerConfig, TrainConfig


def get_config():
    return to_config_dict(
        FinetuneConfig(
            init_from="missing",
            task=TaskConfig(
                train="missing",
                inputs=("text",),
                target="label",
                prefix="which: ",
                labels=("no", "yes"),
                metrics=("accuracy", "f1"),
                input_length=48,
                target_length=6,
                pack=True,
            ),
            dropout_rate=0.1,
            optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=2),
            train=TrainConfig(
                steps=12,
                batch_size=4,
                eval_every=3,
                checkpoint_every=4,
                keep=1,
                log_every=1,
                best_metric="score",
            ),
            eval_examples=6,
        )
    )
