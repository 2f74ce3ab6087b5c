"""What a mesh and a platform must give to models."""

from spade_jax import partition
from spade_jax.config import ModelConfig, StackConfig


def check_stack(
    config: ModelConfig, stack: StackConfig, length: int, mesh: partition.AnyMesh, *, causal: bool
) -> None:
    """Raises ConfigError unless the mesh can share out a stack, and sequences of this length."""

    def shards(axis: str) -> int:
        return partition.shards(axis, mesh)

    for spec in stack.layer_specs:
        for name in spec.mixers:
            config.mixers[name].check_mesh(config, length, causal=causal, shards=shards)


def check_implementations(config: ModelConfig) -> None:
    """Raises ConfigError where an implementation is named that is not there."""
    for mixer in config.without_unused_mixers().mixers.values():
        mixer.check_implementation(config)
