import dataclasses
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.accelerator import __main__ as command
from benchmarks.accelerator import cases, correctness, operations, sizes, updates
from benchmarks.accelerator.budget import Budget
from benchmarks.accelerator.cases import Case
from benchmarks.accelerator.compiling import FAILED, REFUSED
from benchmarks.accelerator.correctness import OK, WRONG
from pretrain.config import PretrainConfig
from spade_jax.config import StackConfig
from spade_jax.config.file import read_config
from spade_jax.models.flops import stack_flops
from spade_jax.ops.dispatch import Operation

ROOT = Path(__file__).parents[2]
NOT_NEEDED = {"tensorflow", "seqio", "ml_collections", "orbax", "grain", "sklearn", "scipy"}


@pytest.fixture
def product():
    """A product of a query and a bias by implementations of which one is right."""
    operation = Operation("product")

    def off(query, bias):
        return 1.1 * query * bias

    @jax.custom_vjp
    def off_backwards(query, bias):
        return query * bias

    off_backwards.defvjp(
        lambda query, bias: (query * bias, (query, bias)),
        lambda kept, g: (g * kept[1], g * kept[0] * jnp.nan),
    )

    def breaks(query, bias):
        raise TypeError("no such instruction")

    operation.register("xla", lambda query, bias: query * bias, platforms=("cpu",))
    operation.register("off", off)
    operation.register("off backwards", off_backwards)
    operation.register("refuses", off, refuses=lambda query, bias: "takes nothing")
    operation.register("breaks", breaks)

    def function(*arrays, implementation):
        return operation.choose(implementation, *arrays)(*arrays)

    query, bias, cotangent = (
        jnp.asarray(np.random.default_rng(i).normal(size=(4, 8)), jnp.bfloat16) for i in range(3)
    )
    return Case("product", operation, function, {"query": query, "bias": bias}, cotangent, 1e6)


def test_wrong_numbers_are_told_from_right_ones(product):
    checks = {c.implementation: c for c in correctness.check_all([product], lambda words: None)}
    verdicts = {name: check.verdict for name, check in checks.items()}
    assert verdicts == {
        "xla": OK,
        "off": WRONG,
        "off backwards": WRONG,
        "refuses": REFUSED,
        "breaks": FAILED,
    }
    assert checks["off backwards"].worst == "d bias"
    assert checks["off"].errors["result"] > 0.02 > checks["xla"].errors["result"] > 0
    assert checks["refuses"].reason.startswith("product: implementation 'refuses' takes nothing")
    assert checks["breaks"].reason == "TypeError: no such instruction"
    assert [name for name, check in checks.items() if check.bad] == [
        "off",
        "off backwards",
        "breaks",
    ]


def test_errors_are_relative_to_the_largest_value():
    want = {"a": jnp.array([1.0, -4.0]), "b": jnp.zeros(2), "c": jnp.ones(3)}
    got = {"a": jnp.array([1.0, -4.4]), "b": jnp.array([0.0, 0.5]), "c": jnp.ones(2)}
    errors = correctness.errors_of(got, want)
    assert errors["a"] == pytest.approx(0.1)
    assert errors["b"] == 0.5
    assert np.isnan(errors["c"])  # Of another shape.


def test_every_implementation_has_a_time_or_a_reason(product):
    times = operations.time_all([product], 0.0, lambda words: None)
    assert len(times) == 2 * len(product.operation.implementations)
    for each in times:
        assert (each.milliseconds is None) == (each.implementation in ("refuses", "breaks"))
        assert (each.reason == "") == (each.milliseconds is not None)
    forward, both = (each for each in times if each.implementation == "xla")
    assert forward.teraflops == pytest.approx(1e6 / (forward.milliseconds / 1e3) / 1e12)
    assert both.teraflops == pytest.approx(3e6 / (both.milliseconds / 1e3) / 1e12)
    assert forward.ratio == 1.0


def test_cases_count_what_the_model_counts():
    """All four together are the model's own count without projections and feed-forward."""
    model, batch = sizes.SMALL.model, sizes.SMALL.checked
    window, causal, cross, state_space = cases.timed_cases(sizes.SMALL, batch)
    width = model.attention.num_heads * model.head_dim
    seen = np.abs(np.subtract.outer(np.arange(batch.inputs), np.arange(batch.inputs))) <= 7
    assert window.flops == pytest.approx(batch.rows * 4 * width * seen.sum())
    assert causal.flops == batch.rows * 4 * width * batch.targets * (batch.targets + 1) / 2
    assert cross.flops == batch.rows * 4 * width * batch.targets * batch.inputs
    d = model.d_model
    projections = 4 * 2 * d * width
    first = projections + 2 * 2 * d * d + 6 * d * model.d_ff
    second = projections + 6 * d * model.d_ff
    encoder = stack_flops(model, model.encoder, batch.inputs, causal=False)
    assert encoder * batch.rows == pytest.approx(
        state_space.flops + 2 * window.flops + batch.rows * batch.inputs * (first + second)
    )


def test_base_is_the_configuration():
    config = read_config("configs/pretrain/base.py", {}, PretrainConfig, "pretrain")
    assert config.model == sizes.BASE.model
    assert config.optimizer == sizes.OPTIMIZER
    assert config.loss.z_loss == sizes.Z_LOSS


def test_the_reference_alone():
    model = updates.with_implementation(sizes.SMALL.model, "xla")
    assert model.attention.implementation == model.mixers["s4"].implementation == "xla"
    assert updates.with_implementation(model, updates.DEFAULT) is model


def test_parts_without_time_are_left_out_and_failures_stop_nothing(capsys):
    budget, ran = Budget(100), []
    budget.run("long", 200, functools.partial(ran.append, "long"))
    budget.run("broken", 1, lambda: 1 / 0)
    budget.run("short", 1, functools.partial(ran.append, "short"))
    assert (ran, budget.left_out, budget.failed) == (["short"], ["long"], ["broken"])
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_at_once(capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        command.parse([f"--json={tmp_path}/missing/results.json"])
    assert stopped.value.code == 2
    assert "No such file or directory" in capsys.readouterr().err.splitlines()[-1]


def test_it_needs_no_data_libraries():
    names = [path.stem for path in (ROOT / "benchmarks/accelerator").glob("*.py")]
    modules = ", ".join(f"benchmarks.accelerator.{name}" for name in names)
    script = f"import sys, {modules}; print({NOT_NEEDED!r} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_parts_write_their_results(monkeypatch, capsys, tmp_path):
    """Of a model and batch that compile quickly, with one case for all."""
    model = dataclasses.replace(
        sizes.SMALL.model,
        encoder=StackConfig("s4"),
        remat="none",
        d_model=8,
        d_ff=8,
    )
    batch = sizes.Batch(1, 8, 4)
    least = sizes.Sizes(model, (batch,), batch, miniature=True)
    for name in ("checked_cases", "timed_cases"):
        monkeypatch.setattr(cases, name, lambda *args: [cases.cross_case(model, batch)])
    file = tmp_path / "results.json"
    measurements = command.Measurements(least, Budget(600), str(file), 0.0)
    measurements.run()
    assert measurements.report() == 0
    results = json.loads(file.read_text())
    # On a CPU, kernels of other platforms say that they are.
    checks = {check["implementation"]: check["verdict"] for check in results["correctness"]}
    assert checks.pop("xla") == OK
    assert set(checks.values()) <= {REFUSED}
    assert [each["implementation"] for each in results["updates"]] == ["default", "xla"]
    assert results["updates"][0]["tokens_per_second"] == pytest.approx(
        12 / results["updates"][0]["milliseconds"] * 1e3
    )
    # The same model, parameters and tokens.
    assert results["updates"][0]["loss"] == pytest.approx(results["updates"][1]["loss"], rel=1e-3)
    [breakdown] = results["breakdown"]
    places = {place["name"]: place["milliseconds"] for place in breakdown["places"]}
    assert {"optimiser", "cross attention", "state space convolution"} <= set(places)
    assert sum(places.values()) == pytest.approx(breakdown["milliseconds"])
    assert "an update of 1 x (8 + 4)" in capsys.readouterr().out


@pytest.mark.slow
def test_the_whole_command_in_miniature(capsys, tmp_path):
    file = tmp_path / "results.json"
    assert command.main([f"--json={file}", "--budget=3000"]) == 0
    results = json.loads(file.read_text())
    assert results["left_out"] == results["failed"] == []
    assert {check["implementation"] for check in results["correctness"]} >= {"xla"}
    # Of the first batch by the reference as well.
    assert [each["implementation"] for each in results["updates"]] == ["default", "xla", "default"]
    assert all(each["milliseconds"] > 0 for each in results["operations"] if not each["reason"])
    [breakdown] = results["breakdown"]
    total = sum(place["milliseconds"] for place in breakdown["places"])
    assert total == pytest.approx(breakdown["milliseconds"])
    assert 0 < breakdown["state_space"] < 1
    printed = capsys.readouterr().out
    assert re.search(r"done: 0 of \d+ checks are bad, 0 updates did not run, 0 parts", printed)
