"""A random model, and the evaluation of what it writes."""

import json

from rich.console import Console

from finetune.evaluation import Evaluator
from spade_jax.config import AttentionConfig, EncoderDecoderConfig, StackConfig
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.evaluation_sets import evaluation_sets
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.decoding.config import BeamConfig
from spade_jax.mixers import S4, Window
from spade_jax.models.build import builder
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.sharding import make_mesh
from spade_jax.training.step import make_trainer

MODEL = EncoderDecoderConfig(
    vocab_size=360,
    d_model=16,
    d_ff=24,
    encoder=StackConfig("s4+window:concat"),
    decoder=StackConfig("full"),
    mixers={"s4": S4(state_size=4, chunk_length=8), "window": Window(3)},
    attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
)
DECODINGS = {
    "greedy": BeamConfig(),
    "beam": BeamConfig(beams=3),
}


def make_sets(directory):
    """13 inputs of 1 to 73 letters."""
    rows = [{"in": "ab c"[i % 4] * (1 + 6 * i), "out": f"word {i}"} for i in range(13)]
    rows = [row | {"in": "x" + row["in"]} for row in rows]
    path = directory / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return evaluation_sets(task(path), "validation")


def task(path):
    return TaskConfig(
        validation=str(path),
        inputs=("in",),
        target="out",
        metrics=("rouge1", "sequence_accuracy"),
        input_length=64,
        target_length=10,
        vocabulary="bytes",
        extra_ids=100,
    )


def evaluation_of(sets, batch_size, decoding):
    """Metrics and predictions of the random model."""
    trainer = make_trainer(
        builder(MODEL),
        Seq2Seq(),
        OptimizerConfig(warmup_steps=1),
        TrainConfig(steps=9, batch_size=batch_size),
        make_mesh(MeshConfig()),
    )
    vocabulary = load_vocabulary(task("none"))
    evaluator = Evaluator(trainer, decoding, vocabulary, 64, 10, Console(quiet=True))
    params = trainer.init().params
    return evaluator.metrics(params, sets), evaluator.predict(params, sets[0])
