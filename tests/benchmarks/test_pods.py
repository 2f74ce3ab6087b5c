"""Which steps are compiled for pods, and that no one is twice."""

import contextlib
import json
from pathlib import Path

from benchmarks import pods


def test_quick_compilations_have_no_times():
    grid, timed = list(pods.commands(False)), list(pods.commands(True))
    assert all("--quick" in command for command in grid)
    assert not any("--quick" in command for command in timed)
    assert (len(grid), len(timed)) == (24, 4)
    assert len({tuple(command) for command in grid + timed}) == 28


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    ran = []

    def compile_one(program, check):
        *command, report = program[3:]
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(command)
        Path(report.removeprefix("--json=")).write_text(json.dumps({"time": {"computations": 1}}))

    monkeypatch.setattr(pods.subprocess, "run", compile_one)
    output = tmp_path / "pods.jsonl"
    arguments = ["--times", f"--output={output}"]
    with contextlib.suppress(KeyboardInterrupt):
        pods.main(arguments)
    assert len(output.read_text().splitlines()) == 3
    first, ran[:] = list(ran), []
    pods.main(arguments)
    assert first + ran == list(pods.commands(True))
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["command"] for line in lines] == first + ran
    assert lines[0]["time"] == {"computations": 1}
