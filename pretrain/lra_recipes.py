"""The Long Range Arena's tasks, and settings of MEGA, S4 and SPADE for them.

MEGA's are those of its authors (arXiv 2209.10655), with chunks; S4's those that its authors' code
has now, and not the older ones of their table (arXiv 2111.00396). SPADE's (2212.08136) are not
published: "mega" is MEGA's with S4 beside the bottom layer's attention, and "window" is ours.
What differs from each is in docs/lra.md. The files in `configs/lra` share all of it.
"""

import dataclasses
from typing import Any, Literal

import ml_collections

from pretrain.config import PretrainConfig
from spade_jax.config import AttentionConfig, ClassifierConfig, StackConfig
from spade_jax.config.file import to_config_dict
from spade_jax.data.classification.config import VOCABULARIES, ClassificationDataConfig
from spade_jax.mixers import EMA, S4, Mega, Window
from spade_jax.training.config import OptimizerConfig, TrainConfig

_CIFAR10 = dict(source="tfds", name="cifar10:3.0.2", inputs=("image",), mean=0.48, std=0.24)
_PATHFINDER = dict(source="pathfinder", validation_share=0.1, test_share=0.1, encoding="pixels")
_AAN = "new_aan_pairs.{}.tsv"
_DATA: dict[str, dict[str, Any]] = {
    "listops": dict(
        train="lra/listops/basic_train.tsv",
        validation="lra/listops/basic_val.tsv",
        test="lra/listops/basic_test.tsv",
        inputs=("Source",),
        target="Target",
        classes=10,
        encoding="listops",
        length=2048,
    ),
    "text": dict(
        source="tfds",
        name="imdb_reviews/plain_text:1.0.0",
        train="train",
        test="test",
        validate_on_test=True,
        length=4096,
    ),
    "retrieval": dict(
        train=f"lra/retrieval/{_AAN.format('train')}",
        validation=f"lra/retrieval/{_AAN.format('eval')}",
        test=f"lra/retrieval/{_AAN.format('test')}",
        header=("label", "id1", "id2", "text1", "text2"),
        inputs=("text1", "text2"),
        length=4000,
    ),
    "image": dict(
        **_CIFAR10,
        train="train[:90%]",
        validation="train[90%:]",
        test="test",
        classes=10,
        encoding="pixels",
        length=1024,
    ),
    "pathfinder": dict(**_PATHFINDER, train="lra/pathfinder32/curv_contour_length_14", length=1024),
    "pathx": dict(**_PATHFINDER, train="lra/pathfinder128/curv_contour_length_14", length=16384),
}


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """How one model learns one task.

    Attributes:
      layers, width: and `inner`, within the feed-forward blocks and the classifier's head.
      query_dim: MEGA's z.
      weights: MEGA's.
      state_size, copies: S4's; no copies: one for each feature.
      norm, placement: as of `ModelConfig`.
      batch: rows of an update, in `parts`.
      rate, decay, dropout: as their names say.
      steps, warmup: updates.
      epoch: updates between evaluations, which are about as many as an epoch of the data has.
    """

    layers: int
    width: int
    norm: Literal["layer", "scale", "batch"]
    placement: Literal["pre", "post"]
    batch: int
    rate: float
    decay: float
    dropout: float
    steps: int
    warmup: int
    epoch: int
    parts: int = 1
    inner: int = 0
    query_dim: int = 64
    weights: Literal["softmax", "laplace"] = "softmax"
    state_size: int = 64
    copies: int | None = None


_R = _Recipe
# fmt: off
_MEGA = {
    "listops": _R(6, 80, "layer", "post", 64, 1e-3, 0.01, 0.1, 90_000, 3_000, 1_500, inner=160),
    "text": _R(4, 128, "scale", "post", 50, 4e-3, 0.01, 0.1, 25_000, 10_000, 500, 2, inner=256),
    "retrieval": _R(6, 128, "scale", "post", 64, 3e-3, 0.04, 0.1, 91_960, 10_000, 2_299, 8, 256),
    "image": _R(8, 160, "batch", "pre", 50, 1e-2, 0.02, 0.0, 180_000, 9_000, 900,
                inner=320, query_dim=96, weights="laplace"),
    "pathfinder": _R(6, 128, "batch", "pre", 128, 1e-2, 0.01, 0.0, 250_000, 50_000, 1_250,
                     inner=256, weights="laplace"),
    "pathx": _R(4, 64, "batch", "pre", 128, 1e-2, 0.01, 0.0, 125_000, 25_000, 1_250, 8,
                inner=128, query_dim=32, weights="laplace"),
}
_S4 = {
    "listops": _R(6, 256, "batch", "post", 32, 1e-2, 0.05, 0.0, 120_000, 12_000, 3_000,
                  state_size=4, copies=1),
    "text": _R(6, 256, "batch", "pre", 16, 1e-2, 0.05, 0.0, 50_000, 5_000, 1_563,
               state_size=4, copies=1),
    "retrieval": _R(6, 256, "batch", "pre", 64, 1e-2, 0.05, 0.0, 50_000, 5_000, 2_299,
                    state_size=4, copies=1),
    "image": _R(6, 512, "batch", "post", 50, 1e-2, 0.05, 0.1, 180_000, 18_000, 900, copies=1),
    "pathfinder": _R(6, 256, "batch", "pre", 64, 4e-3, 0.05, 0.0, 500_000, 50_000, 2_500),
    "pathx": _R(6, 256, "batch", "pre", 16, 1e-3, 0.05, 0.0, 500_000, 50_000, 10_000),
}
# fmt: on
# Where one row of pixels is as long as others' windows are.
_CHUNK = {"pathx": 4096}
_TAPS = {"pathx": 4096}
_RADIUS = {"pathx": 1023}


def mega(task: str) -> ml_collections.ConfigDict:
    """MEGA-chunk."""
    recipe = _MEGA[task]
    return _config(task, recipe, _mega_model(task, recipe, f"{recipe.layers}*mega"), _adam(task))


def spade_mega(task: str) -> ml_collections.ConfigDict:
    """MEGA-chunk whose bottom layer has S4 beside it."""
    recipe = _MEGA[task]
    layers = f"s4+mega:concat, {recipe.layers - 1}*mega"
    return _config(task, recipe, _mega_model(task, recipe, layers), _with_s4(_adam(task)))


def spade_window(task: str) -> ml_collections.ConfigDict:
    """Window attention, and S4 beside it in the bottom layer."""
    recipe = dataclasses.replace(_MEGA[task], rate=1e-3, placement="pre")
    width = 2 * recipe.width
    model = _model(
        task,
        recipe,
        d_model=width,
        d_ff=2 * width,
        head_width=recipe.inner,
        encoder=StackConfig(f"s4+window:concat, {recipe.layers - 1}*window"),
        mixers={"s4": S4(), "window": Window(_RADIUS.get(task, 127))},
        attention=AttentionConfig(num_heads=4),
        feed_forward="gelu",
        feed_forward_bias=True,
    )
    return _config(task, recipe, model, _with_s4(_adam(task, recipe.rate)))


def s4(task: str) -> ml_collections.ConfigDict:
    """S4 alone."""
    recipe = _S4[task]
    mixer = S4(
        state_size=recipe.state_size,
        num_copies=recipe.copies,
        dt_min=1e-4 if task == "pathx" else 1e-3,
        output="glu",
    )
    characters = task in ("text", "retrieval")
    model = _model(
        task,
        recipe,
        d_model=recipe.width,
        d_ff=recipe.width,  # No layer has a feed-forward block.
        encoder=StackConfig(f"{recipe.layers}*s4:no_ff", relative_bias="none"),
        mixers={"s4": mixer},
        attention=AttentionConfig(num_heads=1),
        pair="nli" if task == "retrieval" else None,
        **({} if _is_image(task) else {"embedding_std": 1.0}),
    )
    # A, B and dt have a rate of their own; dt not where states are small.
    rates = ((r".*log_dt", recipe.rate),) if recipe.state_size == 4 else ()
    optimizer = OptimizerConfig(
        learning_rate=recipe.rate,
        schedule="cosine",
        warmup_steps=recipe.warmup,
        final_fraction=0.0,
        betas=(0.9, 0.999),
        clip_norm=None,
        learning_rates=(*rates, (".*", None)),
        weight_decays=((r".*/(a_\w+|b|log_dt)", 0.0), (".*", recipe.decay)),
        group_rates=(("ssm", 1e-3),),
    )
    return _config(task, recipe, model, optimizer, characters=characters)


def _mega_model(task: str, recipe: _Recipe, layers: str) -> ClassifierConfig:
    attention = Mega(
        query_dim=recipe.query_dim,
        value_dim=recipe.inner,
        chunk_size=_CHUNK.get(task, 128),
        weights=recipe.weights,
        average=EMA(state_size=16, max_kernel_length=_TAPS.get(task, 1024)),
        attention_dropout_rate=0.0,
        hidden_dropout_rate=0.0,
    )
    return _model(
        task,
        recipe,
        d_model=recipe.width,
        d_ff=recipe.inner,
        head_width=recipe.inner,
        encoder=StackConfig(layers, relative_bias="none"),
        mixers={"s4": S4(), "mega": attention},
        attention=AttentionConfig(num_heads=1),
        feed_forward="silu",
        feed_forward_bias=True,
    )


def _model(task: str, recipe: _Recipe, **settings: Any) -> ClassifierConfig:
    data = _DATA[task]
    return ClassifierConfig(
        **{
            "vocab_size": None if _is_image(task) else VOCABULARIES[data.get("encoding", "bytes")],
            "classes": data.get("classes", 2),
            "norm": recipe.norm,
            "norm_epsilon": 1e-5,
            "norm_placement": recipe.placement,
            "final_norm": recipe.placement == "pre",
            "dropout_rate": recipe.dropout,
            "pair": "concat" if task == "retrieval" else None,
            **settings,
        }
    )


def _adam(task: str, rate: float | None = None) -> OptimizerConfig:
    """MEGA's, which decays every parameter."""
    recipe = _MEGA[task]
    rate = rate or recipe.rate
    return OptimizerConfig(
        learning_rate=rate,
        schedule="linear",
        warmup_steps=recipe.warmup,
        warmup_power=2.0 if task == "pathx" else 1.0,
        initial_fraction=1e-7 / rate,
        final_fraction=0.0,
        weight_decays=((".*", recipe.decay),),
    )


def _with_s4(optimizer: OptimizerConfig) -> OptimizerConfig:
    """The same, with a rate and no decay for S4."""
    state_space = r".*global_mixer/.*"
    return dataclasses.replace(
        optimizer,
        learning_rates=((state_space, 1e-3), *optimizer.learning_rates),
        weight_decays=((state_space, 0.0), *optimizer.weight_decays),
    )


def _config(
    task: str,
    recipe: _Recipe,
    model: ClassifierConfig,
    optimizer: OptimizerConfig,
    *,
    characters: bool = False,
) -> ml_collections.ConfigDict:
    """characters: as S4 has them, in place of bytes."""
    data = ClassificationDataConfig(**_DATA[task])
    if characters:
        data = dataclasses.replace(data, encoding="characters")
    return to_config_dict(
        PretrainConfig(
            model=model,
            data=data,
            optimizer=optimizer,
            train=TrainConfig(
                steps=recipe.steps,
                batch_size=recipe.batch,
                microbatches=recipe.parts,
                eval_every=recipe.epoch,
                checkpoint_every=recipe.epoch,
                keep=1,
                log_every=100,
            ),
        )
    )


def _is_image(task: str) -> bool:
    return _DATA[task].get("encoding") == "pixels"
