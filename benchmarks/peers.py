"""The same encoder-decoder as LongT5, by SPADE, by Hugging Face's Flax and by its PyTorch models.

python -m benchmarks.peers --help

On a CPU: loss and gradient, in float32. 4 + 4 layers of d 512, gated GELU of 1,024, 8 heads of 64,
a window of 127 to either side in the encoder, T5's biases, vocabulary 32,128. SPADE runs it twice:
with window attention alone ("4*window"), which is LongT5's own architecture, and with S4 in the
first layer.

On a GPU, `--device=gpu`: whole updates of SPADE base as it is pre-trained (Adafactor, recomputing
all but matmuls), and of LongT5 of the same widths in PyTorch: bfloat16 by autocast, fused AdamW,
with all activations kept and with checkpoints. What JAX holds PyTorch cannot have.

Peers are optional, and left out where they are not installed: `torch`, and for both of them
`transformers`, of which Flax needs a version before 5, the last to have Flax models. Install them
with pip into an environment of their own beside JAX and Flax, for they may want other versions.
"""

import argparse
import contextlib
import dataclasses
import functools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.arguments import positive
from spade_jax.programs import take_large_pages

VOCABULARY, RADIUS = 32128, 127
# Of base: rows, input and target tokens.
GPU_BATCHES = ((32, 1024, 229), (8, 4096, 910), (2, 16384, 3642))


@dataclasses.dataclass(frozen=True)
class Competitor:
    """One of them.

    Attributes:
      run: computes once, waits for it, and gives the loss.
      parameters: how many it has.
    """

    name: str
    run: Callable[[], float]
    parameters: int


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__.partition("\n")[0],
        allow_abbrev=False,
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--inputs", type=positive, default=4096, help="tokens; on a CPU")
    parser.add_argument("--targets", type=positive, default=128, help="tokens; on a CPU")
    parser.add_argument("--layers", type=positive, default=4, help="of each stack; on a CPU")
    parser.add_argument("--repeats", type=positive, default=3, help="rounds to take medians of")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Prints tables; returns the exit status."""
    options = parse(argv)
    if options.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    else:
        # Else JAX takes most of the memory, and PyTorch would find none.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Only here, so that --help needs no JAX.
    import jax

    if options.device == "gpu":
        if jax.default_backend() != "gpu":
            print(f"--device = 'gpu': JAX finds a {jax.default_backend()} only", file=sys.stderr)
            return 2
        for batch in GPU_BATCHES:
            compare(on_gpu(batch), "update", batch, options.repeats)
        return 0
    batch = (1, options.inputs, options.targets)
    compare(on_cpu(batch, options.layers), "loss and gradient", batch, options.repeats)
    return 0


def compare(
    makers: dict[str, Callable[[], Competitor]],
    what: str,
    batch: tuple[int, int, int],
    repeats: int,
) -> None:
    """Prints a table of those that can be had, which take turns, and says what cannot."""
    competitors, missing = [], {}
    for name, make in makers.items():
        try:
            competitors.append(make())
        # A peer may be absent, of another version or too large: all that is its own affair.
        except Exception as error:
            missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    seconds, losses = run_in_turns(competitors, repeats, missing)
    print_table(competitors, seconds, losses, what, batch)
    for name, reason in missing.items():
        print(f"left out: {name} ({reason})")


def run_in_turns(
    competitors: Sequence[Competitor], repeats: int, missing: dict[str, str]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each round, and the last loss, by name; what fails is noted as missing.

    As in `timing`: at its turn each runs twice, and the second time counts.
    """
    seconds: dict[str, list[float]] = {each.name: [] for each in competitors}
    losses: dict[str, float] = {}
    for _ in range(repeats):
        for each in competitors:
            if each.name in missing:
                continue
            try:
                each.run()
                start = time.perf_counter()
                losses[each.name] = each.run()
                seconds[each.name].append(time.perf_counter() - start)
            # Such as one that has no memory left.
            except Exception as error:
                missing[each.name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return {name: found for name, found in seconds.items() if name not in missing}, losses


def print_table(
    competitors: Sequence[Competitor],
    seconds: dict[str, list[float]],
    losses: dict[str, float],
    what: str,
    batch: tuple[int, int, int],
) -> None:
    from rich.console import Console
    from rich.table import Table

    from benchmarks import timing

    rows, inputs, targets = batch
    table = Table(
        title=f"{what} of {rows} x ({inputs:,} + {targets:,})",
        caption=f"size: parameters. ratio: to the first. {timing.machine()}",
    )
    table.add_column("", no_wrap=True)
    for heading in ("size", "ms", "ratio", "tokens/s", "loss"):
        table.add_column(heading, justify="right")
    first = next(iter(seconds.values()), [])
    for each in competitors:
        if each.name in seconds:
            own = seconds[each.name]
            table.add_row(
                each.name,
                f"{each.parameters / 1e6:.1f}M",
                f"{1e3 * np.median(own):,.0f}",
                f"{np.median(np.divide(own, first)):.2f}",
                f"{rows * (inputs + targets) / np.median(own):,.0f}",
                f"{losses[each.name]:.2f}",
            )
    Console().print(table)


def on_cpu(batch: tuple[int, int, int], layers: int) -> dict[str, Callable[[], Competitor]]:
    """What makes each competitor, by name."""
    mixed = "s4+window:concat" + (f", {layers - 1}*window" if layers > 1 else "")
    makers: dict[str, Callable[[], Competitor]] = {
        name: functools.partial(spade, name, encoder, batch, layers)
        for encoder in (mixed, f"{layers}*window")
        for name in (f"SPADE, {encoder}",)
    }
    for name, make in (("LongT5, Flax", flax_longt5), ("LongT5, PyTorch", torch_longt5)):
        makers[name] = functools.partial(make, name, batch, layers)
    return makers


def on_gpu(batch: tuple[int, int, int]) -> dict[str, Callable[[], Competitor]]:
    """What makes each competitor, by name."""
    makers: dict[str, Callable[[], Competitor]] = {
        "SPADE base": functools.partial(spade_update, "SPADE base", batch)
    }
    for name, checkpoints in (("LongT5, PyTorch", False), ("LongT5, PyTorch, checkpoints", True)):
        makers[name] = functools.partial(torch_update, name, batch, checkpoints=checkpoints)
    return makers


def tokens(batch: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The same for all: int64 inputs [b, l] and targets [b, t] of no special meaning."""
    rows, inputs, targets = batch
    rng = np.random.default_rng(0)
    return (
        rng.integers(3, VOCABULARY - 128, (rows, inputs)),
        rng.integers(3, VOCABULARY - 128, (rows, targets)),
    )


def shifted(targets: np.ndarray) -> np.ndarray:
    """What the decoder reads: a 0, and the targets but the last."""
    return np.pad(targets, ((0, 0), (1, 0)))[:, :-1]


def spade(name: str, encoder: str, batch: tuple[int, int, int], layers: int) -> Competitor:
    """Loss and gradient of SPADE with this pattern of encoder layers."""
    import jax
    from flax import nnx

    from spade_jax.config import AttentionConfig, StackConfig
    from spade_jax.models.build import builder
    from spade_jax.models.presets import preset
    from spade_jax.objectives.config import LossConfig
    from spade_jax.objectives.seq2seq import Seq2Seq

    config = preset(
        "small",
        vocab_size=VOCABULARY,
        encoder=StackConfig(encoder),
        decoder=StackConfig(f"{layers}*full"),
        attention=AttentionConfig(num_heads=8, head_dim=64),
    )
    objective = Seq2Seq(LossConfig())
    graph, state = nnx.split(builder(config)(nnx.Rngs(0)))
    params = nnx.to_pure_dict(state)
    inputs, targets = (array.astype(np.int32) for array in tokens(batch))
    arrays = {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": shifted(targets),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }

    def loss(params: Any, arrays: Any) -> jax.Array:
        sums = objective(nnx.merge(graph, params), objective.batch.of(arrays), None)
        return sums.minimised / sums.divisor

    return _jax_competitor(name, loss, params, arrays)


def flax_longt5(name: str, batch: tuple[int, int, int], layers: int) -> Competitor:
    """Loss and gradient of Hugging Face's Flax model."""
    import optax
    from transformers import FlaxLongT5ForConditionalGeneration

    with _old_names():
        model = FlaxLongT5ForConditionalGeneration(longt5_config(512, 1024, layers, 8), seed=0)
    inputs, targets = tokens(batch)
    arrays = {"input_ids": inputs, "decoder_input_ids": shifted(targets), "targets": targets}

    def loss(params: Any, arrays: Any) -> Any:
        logits = model(
            arrays["input_ids"],
            decoder_input_ids=arrays["decoder_input_ids"],
            params=params,
            train=True,
        ).logits
        each = optax.softmax_cross_entropy_with_integer_labels(logits, arrays["targets"])
        return each.mean()

    int32 = {key: array.astype(np.int32) for key, array in arrays.items()}
    with _old_names():
        return _jax_competitor(name, loss, model.params, int32)


@contextlib.contextmanager
def _old_names() -> Iterator[None]:
    """`jax.numpy.clip` also takes its bounds by the names that JAX had when that model was written,
    and no longer has."""
    import jax

    jnp: Any = jax.numpy
    new = jnp.clip

    def clip(array: Any, *bounds: Any, a_min: Any = None, a_max: Any = None, **named: Any) -> Any:
        old = {"min": a_min, "max": a_max}
        named |= {name: bound for name, bound in old.items() if bound is not None}
        return new(array, *bounds, **named)

    jnp.clip = clip
    try:
        yield
    finally:
        jnp.clip = new


def _jax_competitor(name: str, loss: Callable[..., Any], params: Any, arrays: Any) -> Competitor:
    import jax

    step = jax.jit(jax.value_and_grad(loss)).lower(params, arrays).compile()

    def run() -> float:
        value, _ = jax.block_until_ready(step(params, arrays))
        return float(value)

    return Competitor(name, run, sum(leaf.size for leaf in jax.tree.leaves(params)))


def longt5_config(d_model: int, d_ff: int, layers: int, heads: int) -> Any:
    """LongT5 with local attention, and otherwise as SPADE is measured here: without dropout, the
    output matrix apart from the embedding."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import LongT5Config
    return LongT5Config(
        vocab_size=VOCABULARY,
        d_model=d_model,
        d_kv=64,
        d_ff=d_ff,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        local_radius=RADIUS,
        encoder_attention_type="local",
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
        use_cache=False,
    )


def torch_longt5(name: str, batch: tuple[int, int, int], layers: int) -> Competitor:
    """Loss and gradient of Hugging Face's PyTorch model."""
    import torch
    from transformers import LongT5ForConditionalGeneration

    torch.manual_seed(0)
    model = LongT5ForConditionalGeneration(longt5_config(512, 1024, layers, 8)).train()
    inputs, targets = (torch.from_numpy(array) for array in tokens(batch))
    mask = torch.ones_like(inputs)

    def run() -> float:
        model.zero_grad()
        loss = model(input_ids=inputs, attention_mask=mask, labels=targets).loss
        loss.backward()
        return float(loss)

    return Competitor(name, run, sum(each.numel() for each in model.parameters()))


def spade_update(name: str, batch: tuple[int, int, int]) -> Competitor:
    """A whole update of base, by the platform's own implementations."""
    import jax

    from benchmarks.accelerator import updates
    from benchmarks.accelerator.sizes import BASE, Batch

    begun = updates.begin(BASE, Batch(*batch), updates.DEFAULT)
    step = begun.tried.program()
    if step is None:
        raise RuntimeError(begun.tried.reason)
    held = {"state": begun.trainer.init()}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(held["state"].params))

    def run() -> float:
        held["state"], metrics = jax.block_until_ready(step(held["state"], begun.batch))
        return float(metrics["loss"])

    return Competitor(name, run, parameters)


def torch_update(name: str, batch: tuple[int, int, int], *, checkpoints: bool) -> Competitor:
    """A whole update of LongT5 of base's widths, in bfloat16 by autocast, with AdamW."""
    import torch
    from transformers import LongT5ForConditionalGeneration

    if not torch.cuda.is_available():
        raise RuntimeError("this PyTorch has no GPU")
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    model = LongT5ForConditionalGeneration(longt5_config(768, 2048, 12, 12)).cuda().train()
    if checkpoints:
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    inputs, targets = (torch.from_numpy(array).cuda() for array in tokens(batch))
    mask = torch.ones_like(inputs)

    def run() -> float:
        try:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = model(input_ids=inputs, attention_mask=mask, labels=targets).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            torch.cuda.synchronize()
            return float(loss)
        finally:
            # What it keeps for later others could not have.
            torch.cuda.empty_cache()

    return Competitor(name, run, sum(each.numel() for each in model.parameters()))


if __name__ == "__main__":
    take_large_pages()
    sys.exit(main(sys.argv[1:]))
