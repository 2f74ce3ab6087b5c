"""Mosaic kernels (Pallas on TPUs), of which HLO has no cycles: they are counted by the bundles of
instructions that the compiler schedules for them.

The compiler writes such a profile of everything that it compiles, slowly for a large program, and
libtpu 0.0.42 may end the process after some kernels, having written theirs. So each kernel is
compiled by itself, in a process of its own: `python -m spade_jax.aot.kernels`.
"""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from spade_jax.aot.hlo_text import Instruction, Shape
from spade_jax.aot.topology import Topology, devices, parse_topology, set_environment

_TARGET = "tpu_custom_call"
# What of a call's settings its code depends on.
_SETTINGS = ("custom_call_config", "scoped_memory_configs")
_SECONDS = 900


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What a kernel's code depends on; equal ones take equally long.

    Attributes:
      operands, results: of a call.
      settings: the kernel itself and its compiler options, in the JSON of `tpu_custom_call`.
    """

    operands: tuple[Shape, ...]
    results: tuple[Shape, ...]
    settings: str


def kernel_of(instruction: Instruction, beside: Mapping[str, Instruction]) -> Kernel | None:
    """The kernel that an instruction calls; None where it calls none.

    Args:
      beside: the instructions of its computation, by name.
    """
    if instruction.kind != "custom-call" or f'"{_TARGET}"' not in instruction.attributes:
        return None
    config = re.search(r"backend_config=(\{.*\})", instruction.attributes)
    settings = json.loads(config[1]) if config else {}
    return Kernel(
        tuple(beside[name].shapes[0] for name in instruction.operands),
        instruction.shapes,
        json.dumps({name: settings[name] for name in _SETTINGS if name in settings}),
    )


def count_bundles(kernels: Iterable[Kernel], topology: Topology) -> dict[Kernel, int]:
    """Cycles of one run of each kernel by its scheduled code; without those of which the compiler
    says nothing."""
    found = {kernel: _profile(kernel, topology) for kernel in kernels}
    return {kernel: cycles for kernel, cycles in found.items() if cycles is not None}


def _profile(kernel: Kernel, topology: Topology) -> int | None:
    with tempfile.TemporaryDirectory() as folder:
        flag = f"--xla_jf_dump_static_llo_profile_to={folder}"
        flags = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {flag}".strip()
        # What it has written counts, also where the process was ended.
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [sys.executable, "-m", "spade_jax.aot.kernels", str(topology)],
                input=json.dumps(dataclasses.asdict(kernel)),
                env={**os.environ, "LIBTPU_INIT_ARGS": flags},
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
        return read_profile(path.read_text() for path in Path(folder).iterdir())


def read_profile(texts: Iterable[str]) -> int | None:
    """The cycles of the one call in the files of a profile; None where it is in none of them."""
    estimate = re.compile(r'hlo_op_name: "ffi_call[^"]*"\s+estimated_cycles: (\d+)')
    found = [int(match[1]) for text in texts for match in estimate.finditer(text)]
    return max(found, default=None)


def compile_alone(kernel: Kernel, topology: Topology) -> None:
    """Compiles a program for one chip that calls a kernel and does nothing else."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(devices(topology)[:1]), ("chip",))
    place = NamedSharding(mesh, PartitionSpec())

    def shapes(arrays: Iterable[Shape]) -> list[jax.ShapeDtypeStruct]:
        return [jax.ShapeDtypeStruct(dims, _dtype(name), sharding=place) for name, dims in arrays]

    call = jax.ffi.ffi_call(
        _TARGET,
        shapes(kernel.results),
        custom_call_api_version=1,
        legacy_backend_config=kernel.settings,
    )
    program = jax.jit(lambda *operands: call(*operands), out_shardings=place)
    program.lower(*shapes(kernel.operands)).compile()


def _dtype(name: str) -> str:
    """NumPy's name of a dtype of XLA's."""
    if name in ("pred", "bf16"):
        return {"pred": "bool", "bf16": "bfloat16"}[name]
    letter, rest = name[0], name[1:]
    return {"f": "float", "s": "int", "u": "uint", "c": "complex"}[letter] + rest


def main() -> None:
    """Of the topology that the command line names and the kernel that standard input has."""
    topology = parse_topology(sys.argv[1])
    set_environment(topology)
    given = json.load(sys.stdin)
    arrays = {
        name: tuple((dtype, tuple(dims)) for dtype, dims in given[name])
        for name in ("operands", "results")
    }
    compile_alone(Kernel(**arrays, settings=given["settings"]), topology)


if __name__ == "__main__":
    main()
