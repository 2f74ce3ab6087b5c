"""`jax.jit` for programs that run once: on a CPU, compiled in half the time, unoptimised."""

import functools

import jax

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
