import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain import compile as compile_program
from pretrain.compile import main
from spade_jax.aot import hlo
from spade_jax.aot.compiled import Memory, Report, largest_batch
from spade_jax.aot.topology import GIB, parse_topology
from spade_jax.config import ConfigError

ROOT = Path(__file__).parents[2]
MINIATURE = f"--config={ROOT / 'tests' / 'pretrain' / 'miniature.py'}"


def test_report():
    memory = Memory(arguments=1, outputs=2, temporaries=3, code=4)
    one = hlo.Collective("all-reduce", ("fsdp",), 100, ((25,),), "", "1")
    other = hlo.Collective("all-gather", ("fsdp",), 1000, ((250,),), "", "2")
    report = Report(memory, "", 5, None, None, ((one, 3), (other, 1), (one, 2)), 0.0)
    assert memory.total == 10
    assert [report.fits(size) for size in (9, 10, None)] == [False, True, None]
    assert list(report.totals().items()) == [
        (("all-gather", ("fsdp",)), (1, 1000)),
        (("all-reduce", ("fsdp",)), (5, 500)),
    ]
    assert Report(None, "too large", 0, None, None, (), 0.0).fits(None) is False


@pytest.mark.parametrize(("limit", "largest"), [(7, 0), (8, 8), (100, 96), (64, 64)])
def test_largest_batch(limit, largest):
    tried = []
    assert largest_batch(lambda rows: tried.append(rows) or rows <= limit, 8) == largest
    assert len(tried) == len(set(tried)) <= 8


def test_topologies():
    assert parse_topology("v5p:2x2x4").size == 16
    assert parse_topology("v5e:16x16").memory == 16 * GIB
    assert parse_topology("v5e:16x16", slices=4).size == 1024
    assert str(parse_topology("cpu:8")) == "cpu:8"


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5:4x4", "--topology = 'v5:4x4': no such kind; did you mean 'v5p'?"),
        ("v5e:16", "--topology = 'v5e:16': must have 2 number(s) of devices behind the colon"),
        ("cpu:0", "--topology = 'cpu:0': must have 1 number(s) of devices behind the colon"),
        ("v5e:16x32", "--topology = 'v5e:16x32': must have at most 256 devices of v5e"),
        ("v4:2x2x" + "9" * 5000, "--topology = 'v4:2x2x9"),
        ("v5p:2x²x2", "--topology = 'v5p:2x²x2': must have 3 number(s) of devices behind"),
        ("cpu:70000", "--topology = 'cpu:70000': must have at most 1024 devices of cpu"),
        ("v5e:4x4 --slices=0", "--slices = 0: must be at least 1"),
        ("v5e:4x4 --slices=" + "9" * 20, "--slices = 99999999999999999999: must be at most 1024"),
        ("v5e:4x4 --slices=two", "--slices = 'two': must be a whole number"),
        ("gpu:8", "--topology = 'gpu:8': must be at most the 0 gpu device(s) here"),
        ("cpu:8 --slices=2", "--slices = 2: must be 1 with --topology = 'cpu:8'"),
    ],
)
def test_wrong_topologies(topology, message, capsys):
    assert main([MINIATURE, *f"--topology={topology}".split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/report.json", "nowhere/report.json': cannot be written (No such file"),
        ("folder", "folder': is a folder; must be a file to write"),
    ],
)
def test_a_report_that_cannot_be_written_is_said_before_there_is_one(
    name, message, tmp_path, capsys, monkeypatch
):
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(compile_program, "devices", None)
    assert main([MINIATURE, "--topology=cpu:1", f"--json={tmp_path / name}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --json = '")
    assert message in said


def test_what_xla_ends_the_process_for_is_not_lost():
    """It does so itself, and where its standard error is shut, without a word."""
    done = subprocess.run(
        [sys.executable, "-m", "pretrain.compile", MINIATURE, "--topology=cpu:1"],
        env={**os.environ, "XLA_FLAGS": "--xla_no_such_flag=3"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "Unknown flag in XLA_FLAGS: --xla_no_such_flag=3" in done.stderr


def test_a_kind_must_be_named():
    with pytest.raises(ConfigError, match="no such kind; known: cpu, gpu, v4"):
        parse_topology("")


def test_the_command(tmp_path, on_eight_devices):
    script = Path(__file__).with_name("eight_devices_compile_command.py")
    report = on_eight_devices(script, MINIATURE, str(tmp_path / "report.json"))
    assert report["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1, "sequence": 2}
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["fits"] is None
    assert (report["batch_size"], report["lengths"][0]) == (8, 64)
    assert min(report["memory"][name] for name in ("arguments", "temporaries")) > 0
    over = {c["kind"]: c for c in report["collectives"] if c["axes"] == ["sequence"]}
    assert over["collective-permute"]["count"] > 0
    # Queries of the decoder, and where segments go on: all are less than one activation [2, 64, 16]
    # of the encoder.
    assert over["all-gather"]["bytes"] < 2 * 64 * 16 * 4


@pytest.mark.slow
def test_a_tpu_that_is_not_there(tmp_path, on_eight_devices):
    pytest.importorskip("libtpu")
    script = Path(__file__).with_name("eight_devices_compile_command.py")
    report = on_eight_devices(script, MINIATURE, str(tmp_path / "report.json"), "v5e:2x4")
    assert report["device_memory"] == 16 * GIB
    assert report["fits"] is True
    # Of the formula, with what rematerialisation, the state space and the optimiser add.
    assert report["flops"] > report["formula_flops"]


@pytest.mark.slow
def test_slices_that_are_not_there(tmp_path, on_eight_devices):
    pytest.importorskip("libtpu")
    script = Path(__file__).with_name("eight_devices_compile_command.py")
    slices = ("v5e:2x2", "--slices=2", "--config.mesh.data=2")
    report = on_eight_devices(script, MINIATURE, str(tmp_path / "report.json"), *slices)
    assert (report["devices"], report["slices"]) == (8, 2)
    assert report["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1, "sequence": 2}
    over = {tuple(c["axes"]): c for c in report["collectives"] if c["kind"] == "all-reduce"}
    # Gradients are summed over the copies of the parameters, which nothing else crosses.
    assert over[("slices",)]["bytes"] > 0
    assert not any("data" in c["axes"] for c in report["collectives"])
