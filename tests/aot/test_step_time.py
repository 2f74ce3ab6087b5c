"""The time of a step, put together; and of steps for TPUs that are not there."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from pretrain import compile as compile_program
from pretrain.compile import main
from pretrain.report import as_json, show
from spade_jax.aot.compiled import Memory, Report
from spade_jax.aot.estimate import BUNDLES, DECLARED, ESTIMATE, ONE_ROUND, Work
from spade_jax.aot.picture import draw_time
from spade_jax.aot.step_time import summarise
from spade_jax.aot.topology import parse_topology

ROOT = Path(__file__).parents[2]
MINIATURE = f"--config={ROOT / 'tests' / 'pretrain' / 'miniature.py'}"
V5E = "TPU v5 lite"


def part(place, phase, cycles, source=ESTIMATE, times=1):
    return Work(f"{place}.1", "fusion", (), times, cycles, source, place, phase)


PARTS = [
    part("norms", "forward", 100, times=2),
    part("norms", "backward", 300),
    part("attention", "backward", 1000, BUNDLES),
    part("own", "", 50, DECLARED),
    part("loop", "", 0, ONE_ROUND, times=2),
    part("lost", "", None, DECLARED, times=3),
]
OVER = {("all-reduce", ("fsdp",)): 0.5}


@pytest.fixture
def time():
    return summarise(PARTS, 1000.0, OVER, 197e12, V5E)


def test_sums(time):
    assert time.computations == pytest.approx(1.55)
    assert (time.by_bundles, time.declared) == (1.0, 0.05)
    assert (time.one_round, time.not_counted) == ({"loop.1": 2}, {"lost.1": 3})
    assert [(p.name, p.seconds) for p in time.places] == [
        ("attention", 1.0),
        ("norms", 0.5),
        ("own", 0.05),
        ("loop", 0.0),
        ("lost", 0.0),
    ]
    assert time.places[1].phases == {"forward": 0.2, "recomputed": 0, "backward": 0.3, "": 0}


def test_waiting_is_hidden_or_added(time):
    assert time.bounds == pytest.approx((1.55, 2.05))
    assert time.peak_shares == pytest.approx((1 / 1.55, 1 / 2.05))
    longer = summarise(PARTS, 1000.0, {("all-reduce", ("fsdp",)): 4.0}, None, V5E)
    assert longer.bounds == pytest.approx((4.0, 5.55))
    assert longer.peak_shares is None
    assert summarise(PARTS, 1000.0, OVER, 1.0, "another").peak_shares is None


def said(report, capsys, *options):
    """What the command prints of a report."""
    topology = "--topology=v5e:2x2"
    options, config, (topology,) = compile_program._parse([MINIATURE, topology, *options])
    show(Console(width=120), options, config, topology, {"fsdp": 4}, report, None)
    return capsys.readouterr().out


def test_the_screen_and_json_say_the_same(time, capsys):
    report = Report(Memory(1, 2, 3, 4), "", 5, 197e12, None, (), 0.0, time)
    printed = said(report, capsys)
    for line in (
        r"computations +│ +│ +1,550.0 ms",
        r"collectives, at the links' speed +│ +│ +500.0 ms",
        r"time, they hidden to not at all +│ +│ 1,550.0 to 2,050.0 ms",
        r"share of the peak +│ +│ +48.8 to 64.5%",
        r"attention +│ 1,000.00 │ 64.5% │ +│ +│ 1,000.00",
        r"norms +│ +500.00 │ 32.3% │ +200.00 │ +│ +300.00",
        r"of these 1,000.00 ms by scheduled bundles: kernels",
        r"too little, with one round of .*: loop.1 x 2",
        r"of these 50.00 ms as kernels say of themselves",
        r"unknown, and not counted: lost.1 x 3",
    ):
        assert re.search(line, printed), line
    config = compile_program._parse([MINIATURE, "--topology=v5e:2x2"])[1]
    written = as_json(config, parse_topology("v5e:2x2"), {}, "step", report, None)["time"]
    assert written["milliseconds"] == pytest.approx([1550, 2050])
    assert written["peak_share"] == pytest.approx([1 / 1.55, 1 / 2.05])
    assert written["places"][1] == pytest.approx(
        {
            "place": "norms",
            "milliseconds": 500,
            "share": 0.5 / 1.55,
            "forward": 200,
            "recomputed": 0,
            "backward": 300,
            "neither": 0,
        }
    )
    assert written["collectives"] == [
        {"kind": "all-reduce", "axes": ("fsdp",), "milliseconds": 500}
    ]


def test_no_time_is_said(capsys):
    report = Report(Memory(1, 2, 3, 4), "", 5, None, None, (), 0.0)
    assert "no estimate: --quick falsifies it" in said(report, capsys, "--quick")
    assert "no estimate: only TPUs have one" in said(report, capsys, "--topology=cpu:4")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture(time, suffix, tmp_path):
    path = tmp_path / f"time.{suffix}"
    draw_time(time, "a title", path)
    if suffix == "png":
        from matplotlib.image import imread

        pixels = imread(path)
        # As wide as it says, with bars in three colours.
        assert pixels.shape[1] == 800
        blue, red, grey = (0.267, 0.467, 0.667), (0.8, 0.4, 0.467), (0.6, 0.6, 0.6)
        for colour in (blue, red, grey):
            assert (abs(pixels[..., :3] - colour) < 0.01).all(axis=-1).sum() > 100
    else:
        assert path.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--topology=v5e:2x2 --picture=time.gif", "time.gif': must end in .png or .svg"),
        (
            "--topology=cpu:1 --picture=time.png",
            "time.png': must go with TPUs and without --quick: it draws an estimate, and "
            "only TPUs have one",
        ),
        ("--topology=v5e:2x2 --quick --picture=time.png", "and --quick falsifies it"),
        ("--topology=v5e:2x2 --picture=nowhere/time.png", "nowhere/time.png': cannot be written"),
    ],
)
def test_pictures_that_cannot_be_had(options, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([MINIATURE, *options.split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --picture = '")
    assert message in said


@pytest.mark.slow
def test_a_step_for_tpus(tmp_path, on_eight_devices):
    pytest.importorskip("libtpu")
    script = Path(__file__).with_name("eight_devices_compile_command.py")
    picture = tmp_path / "time.png"
    report = on_eight_devices(
        script, MINIATURE, str(tmp_path / "report.json"), "v5e:2x2", f"--picture={picture}"
    )
    time = report["time"]
    assert picture.stat().st_size > 0
    places = {place["place"]: place for place in time["places"]}
    assert sum(p["milliseconds"] for p in places.values()) == pytest.approx(time["computations"])
    assert sum(p["share"] for p in places.values()) == pytest.approx(1)
    named = {
        *("window attention", "causal attention", "cross attention", "attention projections"),
        *("state space operators", "state space carry", "state space convolution"),
        *("feed-forward", "norms", "logits and loss", "embedding", "optimiser", "dropout"),
    }
    assert named <= places.keys()
    for place in named - {"optimiser", "dropout"}:
        assert places[place]["forward"] > 0
        assert places[place]["backward"] > 0
    # Nearly all is in a place with a name.
    unnamed = (places.get(name, {"share": 0}) for name in ("rest of the step", "not attributed"))
    assert sum(place["share"] for place in unnamed) < 0.05
    waiting = sum(c["milliseconds"] for c in time["collectives"])
    assert 0 < waiting < time["computations"]
    assert time["milliseconds"] == pytest.approx(
        [time["computations"], time["computations"] + waiting]
    )
    assert 0 < time["by_bundles"] < time["computations"]
    # How many keys a piece of a sequence sees depends on which piece it is, and is not known here.
    kernels = {name.partition(".")[0] for name in time["one_round"]}
    assert kernels == {"full_forward", "full_backward"}
    assert time["not_counted"] == {}


@pytest.mark.slow
def test_quickly_there_is_no_time(tmp_path, on_eight_devices):
    pytest.importorskip("libtpu")
    script = Path(__file__).with_name("eight_devices_compile_command.py")
    report = on_eight_devices(script, MINIATURE, str(tmp_path / "r.json"), "v5e:2x2", "--quick")
    assert report["time"] is None


@pytest.mark.slow
def test_kernels_by_their_bundles(on_eight_devices):
    pytest.importorskip("libtpu")
    time = on_eight_devices(Path(__file__).with_name("tpu_kernel_times.py"))
    assert time["kernels"] == 5
    grown = ("growing rounds", "7 rounds", "8 rounds")
    calls = {"short": 3, "long": 1} | dict.fromkeys(grown, 1)
    assert {place: times for place, times, _ in time["calls"]} == calls
    cycles = {place: cycles for place, _, cycles in time["calls"]}
    # One kernel in a loop, and once over four times as many rows.
    assert 3 < cycles["long"] / cycles["short"] < 4.2
    counted = sum(times * cycles[place] for place, times in calls.items())
    assert time["by_bundles"] == pytest.approx(counted / 1.5e9)
    # Block i of sixteen takes i rounds: 7.5 in the mean.
    less, more = cycles["7 rounds"], cycles["8 rounds"]
    assert less < more
    assert cycles["growing rounds"] == pytest.approx((less + more) / 2, rel=0.03)
    # All of x and of the output go through memory, at 819 GB/s at most.
    assert cycles["long"] / 1.5e9 > 2 * 4 * 4096 * 128 * 4 / 819e9
    assert {"short", "sum", "long"} <= {place["name"] for place in time["places"]}
    assert time["computations"] > time["by_bundles"]
    assert (time["one_round"], time["not_counted"]) == ({}, {})
