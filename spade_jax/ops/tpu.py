"""What kernels for TPUs have in common."""

from spade_jax import partition
from spade_jax.ops import dispatch

# Vector memory that a kernel takes at most, of the 64 MiB of a v5p's core.
VMEM_BYTES = 48 * 2**20
# These have 16 MiB.
_TOO_SMALL = ("TPU v2", "TPU v3", "TPU v4", "TPU v4 lite")


def refuses() -> str | None:
    """Why such a kernel cannot be had here, as an implementation's `refuses` says it; None where it
    can, or is interpreted."""
    if (elsewhere := dispatch.runs_elsewhere("tpu")) is not None:
        return elsewhere
    if not dispatch.interprets() and (kind := partition.device_kind()) in _TOO_SMALL:
        return f"needs the vector memory of a TPU v5e or later, and this is for a {kind}"
    return None
