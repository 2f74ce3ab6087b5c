"""How a model is trained, as frozen dataclasses that know no framework, with their checks."""

import dataclasses
from typing import Annotated, Literal

from spade_jax.config import MAX_COUNT, Count, Range, Seed, check_fields, require, require_pattern
from spade_jax.config.hosts import MAX_DEVICES

MAX_BATCH = 2**20

# What float32 holds; what is sane depends on the model.
MAX_RATE = 1e30
Rate = Annotated[float, Range(0, MAX_RATE, "for the model's own")]
RateTable = tuple[tuple[str, Rate | None], ...]
GroupRates = tuple[tuple[str, Rate], ...]
Beta = Annotated[float, Range(0, 1, below=True)]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The update rule, its schedule, and what differs from parameter to parameter.

    The two tables map regular expressions over whole parameter paths, such as
    `encoder/.*/kernel`, to a rate. The first match wins, every parameter must be matched, and every
    pattern must match something. None stands for the parameter's own: the rate of its group or of
    the model, the model's decay where it decays.

    Attributes:
      name: "adamw"; "adafactor" with factored second moments and steps relative to the root mean
        square of each parameter; or "nag", gradient descent with Nesterov's momentum.
      learning_rate: the peak, reached after the warm-up.
      schedule: what follows it: "constant", "linear" or "cosine" down to `final_fraction` of the
        peak at the last step, or "inverse_sqrt", (warmup_steps / step) ** 0.5. "rsqrt_decay" is
        T5's, which falls as "inverse_sqrt" does, but begins at the peak and holds it until then.
        "cosine_restarts" falls to `final_fraction` within each period, and begins again.
      warmup_steps: steps of growth from `initial_fraction` of the peak; of "rsqrt_decay", at the
        peak.
      warmup_share: the same as a share of `train.steps`, such as 0.01; None is `warmup_steps`.
      warmup_power: step u of w of the warm-up has grown by (u / w) ** warmup_power.
      initial_fraction: where the warm-up begins, as a fraction of the peak.
      final_fraction: where "linear", "cosine" and each period of "cosine_restarts" end, as a
        fraction of the peak.
      period: steps of the first period of "cosine_restarts".
      period_growth, period_shrink: of what is next, as a multiple of a period's length, and of its
        rates.
      betas, eps: decay rates of AdamW's two moments, and what it adds to their root.
      momentum: of "nag"; v = momentum * v + gradient, and the step is momentum * v + gradient.
      decay_exponent: Adafactor's second moment at step t decays by 1 - t ** -decay_exponent.
      weight_decay: decoupled: a step also takes rate * weight_decay * parameter away.
      clip_norm: gradients of a larger global norm are scaled down to it; None never clips.
      learning_rates: the peak rate of the matched parameters, which follows the schedule's shape;
        0 freezes them: no gradient is computed and no optimiser slots are held.
      weight_decays: the weight decay of the matched parameters. Parameters say themselves whether
        they decay: norms, biases and the SSM's A, B, D and dt do not, unless a pattern says so, as
        `((".*", 0.01),)` does of all. Decay pulls A, B and dt away from what they stand for.
      group_rates: the peak rate of groups of parameters, such as `(("ssm", 1e-3),)` for a state
        space's A, B and dt; where `learning_rates` says None.
    """

    name: Literal["adamw", "adafactor", "nag"] = "adamw"
    learning_rate: Annotated[float, Range(0, MAX_RATE, above=True)] = 1e-3
    schedule: Literal[
        "constant", "linear", "cosine", "cosine_restarts", "inverse_sqrt", "rsqrt_decay"
    ] = "cosine"
    warmup_steps: Annotated[int, Range(0, MAX_COUNT)] = 1000
    warmup_share: Annotated[float, Range(0, 1, "for warmup_steps", below=True)] | None = None
    warmup_power: Annotated[float, Range(0, 100, above=True)] = 1.0
    initial_fraction: Annotated[float, Range(0, 1)] = 0.0
    final_fraction: Annotated[float, Range(0, 1)] = 0.1
    period: Annotated[int, Range(1, MAX_COUNT)] | None = None
    period_growth: Annotated[int, Range(1, 1000)] = 1
    period_shrink: Annotated[float, Range(0, 1, above=True)] = 1.0
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: Annotated[float, Range(0, 1, above=True)] = 1e-8
    momentum: Beta = 0.99
    decay_exponent: Annotated[float, Range(0, 10, above=True)] = 0.8
    weight_decay: Annotated[float, Range(0, 1000)] = 0.01
    clip_norm: Annotated[float, Range(0, 1e12, "to never clip", above=True)] | None = 1.0
    learning_rates: RateTable = ((".*", None),)
    weight_decays: RateTable = ((".*", None),)
    group_rates: GroupRates = ()

    def __post_init__(self) -> None:
        check_fields(self, "optimizer.")
        require(
            self.schedule not in ("inverse_sqrt", "rsqrt_decay")
            or self.warmup_steps > 0
            or self.warmup_share is not None,
            "optimizer.warmup_steps",
            self.warmup_steps,
            f'must be at least 1 for schedule "{self.schedule}", which falls from there',
        )
        require(
            (self.period is not None) == (self.schedule == "cosine_restarts"),
            "optimizer.period",
            self.period,
            'must be set for schedule "cosine_restarts", and only then',
        )
        for name in ("learning_rates", "weight_decays"):
            for pattern, _ in getattr(self, name):
                require_pattern(f"optimizer.{name}", pattern)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and in what portions the loop runs.

    Attributes:
      steps: updates of the whole run.
      batch_size: sequences per update, over all devices and microbatches.
      microbatches: equal parts of a batch run one after the other, to save memory. Evaluation
        runs on batches of that part's size.
      eval_every: steps between evaluations; the last step always evaluates.
      eval_batches: validation batches per evaluation; None is the whole validation set.
      checkpoint_every: steps between checkpoints; the last step always saves.
      keep: the newest checkpoints that stay.
      best_metric: an evaluation's metric; the checkpoint that is best by it is kept as well.
      patience: the run ends after so many evaluations without a better one; None never does.
      log_every: steps between two lines of metrics.
      profile_steps: the first and the last step to trace for TensorBoard's profile; None traces
        none.
      tracker: where else its numbers go, by a library that must be installed, and whose environment
        variables say where to and as whom; None: nowhere.
      seed: of initial parameters and dropout.
    """

    steps: Count
    batch_size: Annotated[int, Range(1, MAX_BATCH)]
    microbatches: Annotated[int, Range(1, MAX_BATCH)] = 1
    eval_every: Count = 1000
    eval_batches: Annotated[int, Range(1, MAX_COUNT, "for the whole validation set")] | None = None
    checkpoint_every: Count = 1000
    keep: Count = 3
    best_metric: str | None = None
    patience: Annotated[int, Range(1, MAX_COUNT, "to never stop")] | None = None
    log_every: Count = 10
    profile_steps: tuple[Count, Count] | None = None
    tracker: Literal["wandb", "mlflow"] | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self, "train.")
        require(
            self.patience is None or self.best_metric is not None,
            "train.patience",
            self.patience,
            "must come with a train.best_metric to wait for, or be None",
        )
        profiled = self.profile_steps
        require(
            profiled is None or profiled[0] <= profiled[1] <= self.steps,
            "train.profile_steps",
            profiled,
            f"must be a first and a last step, from 1 to train.steps = {self.steps}, or None",
        )
        require(
            self.batch_size % self.microbatches == 0,
            "train.batch_size",
            self.batch_size,
            f"must be a multiple of train.microbatches = {self.microbatches}",
        )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The devices, as a grid; the sizes of its axes are the strategy.

    One of the sizes may be -1: as many as the others leave.

    Attributes:
      data: copies of the parameters, each with rows of its own.
      fsdp: pieces of each parameter and its optimiser slots; the batch is cut into as many.
      tensor: pieces of each layer's heads and features, and of the vocabulary.
      sequence: pieces of the sequences.
      platform: "default" is the best that JAX finds here; another must be there.
    """

    data: Annotated[int, Range(-1, MAX_DEVICES)] = 1
    fsdp: Annotated[int, Range(-1, MAX_DEVICES)] = -1
    tensor: Annotated[int, Range(-1, MAX_DEVICES)] = 1
    sequence: Annotated[int, Range(-1, MAX_DEVICES)] = 1
    platform: Literal["default", "cpu", "gpu", "tpu"] = "default"

    def __post_init__(self) -> None:
        check_fields(self, "mesh.")
        sizes = {name: getattr(self, name) for name in ("data", "fsdp", "tensor", "sequence")}
        for name, size in sizes.items():
            require(size != 0, f"mesh.{name}", size, "must be at least 1, or -1")
        rest = [f"mesh.{name}" for name, size in sizes.items() if size == -1]
        require(
            len(rest) < 2,
            " and ".join(rest),
            -1,
            "must be numbers but for one, which takes what the others leave",
        )
