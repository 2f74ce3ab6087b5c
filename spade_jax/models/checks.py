"""What a mesh and a platform must give to models."""

import contextlib

from jax.sharding import Mesh

from spade_jax import partition
from spade_jax.config import EncoderDecoderConfig, ModelConfig, StackConfig
from spade_jax.mixers.attention.config import require_implementation
from spade_jax.ops.attention.full import FULL_ATTENTION


def check_stack(
    config: ModelConfig, stack: StackConfig, length: int, mesh: partition.AnyMesh, *, causal: bool
) -> None:
    """Raises ConfigError unless the mesh can share out a stack, and sequences of this length."""

    def shards(axis: str) -> int:
        return partition.shards(axis, mesh)

    for spec in stack.layer_specs:
        for name in spec.mixers:
            config.mixers[name].check_mesh(config, length, causal=causal, shards=shards)


def check_implementations(config: ModelConfig, mesh: partition.AnyMesh) -> None:
    """Raises ConfigError where an implementation is named that is not there, or cannot do what the
    model needs on the mesh's devices."""
    known = partition.on_mesh(mesh) if isinstance(mesh, Mesh) else contextlib.nullcontext()
    with known:
        for mixer in config.without_unused_mixers().mixers.values():
            mixer.check_implementation(config)
        if isinstance(config, EncoderDecoderConfig):
            # Of cross-attention.
            require_implementation(FULL_ATTENTION, config, 2, None, causal=False)
