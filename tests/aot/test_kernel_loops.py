"""Loops in kernels, as Pallas lowers them for TPUs."""

import base64
import json
import math
import re

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from spade_jax.aot.kernel_loops import with_mean_rounds

tpu = pytest.importorskip("jax.experimental.mosaic.dialects").tpu
ir = pytest.importorskip("jaxlib.mlir.ir")


def settings(rounds, grid=(2, 4)):
    """Of a kernel that doubles its block so often: as many times as `rounds` says of the place in
    the grid, and of what the kernel reads."""

    def kernel(x, y):
        count = rounds(*(pl.program_id(axis) for axis in range(len(grid))), x)
        y[...] = jax.lax.fori_loop(0, count, lambda _, y: y * 2.0, x[...])

    def program(x):
        block = pl.BlockSpec((8, 128), lambda i, j: (i, j)) if grid else pl.BlockSpec()
        return pl.pallas_call(kernel, grid=grid, in_specs=[block], out_specs=block, out_shape=x)(x)

    x = jnp.ones((16, 512))
    text = jax.jit(program).trace(x).lower(lowering_platforms=("tpu",)).as_text()
    config = re.search(r'backend_config = "((?:[^"\\]|\\.)*)"', text)
    return config[1].replace("\\22", '"')


def bounds(settings):
    """Of the first loop in a kernel: numbers, or None where they are not constants."""
    with ir.Context() as context:
        tpu.register_dialect(context)
        context.allow_unregistered_dialects = True
        body = base64.b64decode(json.loads(settings)["custom_call_config"]["body"])
        module = ir.Module.parse(body)
        block = module.body.operations[0].regions[0].blocks[0]
        loop = next(op for op in block.operations if op.operation.name.endswith("scf.for"))
        return [
            ir.IntegerAttr(value.owner.attributes["value"]).value
            if value.owner.name.endswith("arith.constant")
            else None
            for value in list(loop.operation.operands)[:2]
        ]


@pytest.mark.parametrize(
    ("rounds", "mean"),
    [
        (lambda i, j, x: j + 1, 2.5),
        (lambda i, j, x: jax.lax.div((i + 1) * j * 4 + 3, 2), 5.5),  # 1 3 5 7, 1 5 9 13.
        (lambda i, j, x: jnp.minimum(j, 2) - jnp.where(i == 0, 5, 0), 0.625),  # None below 0.
    ],
)
def test_rounds_are_their_mean_over_the_grid(rounds, mean):
    given = settings(rounds)
    assert bounds(given)[1] is None
    for rounding in (math.floor, math.ceil):
        settled, known = with_mean_rounds(given, rounding)
        assert known
        assert bounds(settled) == [0, rounding(mean)]
        # Nothing is left to settle, and nothing else has changed.
        assert with_mean_rounds(settled, rounding) == (settled, True)


def test_what_depends_on_data_is_not_known():
    given = settings(lambda i, j, x: x[0, 0].astype(jnp.int32) + j)
    assert with_mean_rounds(given, math.floor) == (given, False)
    without_grid = settings(lambda x: x[0, 0].astype(jnp.int32), grid=())
    assert with_mean_rounds(without_grid, math.floor) == (without_grid, False)


def test_constant_rounds_stay():
    given = settings(lambda i, j, x: 3)
    assert with_mean_rounds(given, math.ceil) == (given, True)
