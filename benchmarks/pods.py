"""Pre-training steps compiled for slices of TPUs that are not here; a line of JSON for each.

python -m benchmarks.pods --help
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from spade_jax.aot.topology import parse_topology
from spade_jax.config import ConfigError
from spade_jax.files import check_output

# 16, 64 and 256 chips.
SLICES = ("v5e:4x4", "v5p:4x4x4", "v5e:16x16")
# How many chips share a sequence of so many tokens: each has 4096.
SHARDS = {4096: 1, 16384: 4, 65536: 16}
# What is compiled fully, for its time, takes ten minutes or more a cell.
TIMED_SLICE, TIMED_LENGTHS = "v5e:4x4", (4096, 16384)


def commands(timed: bool) -> Iterator[list[str]]:
    """The arguments of `pretrain.compile` of each cell of the grid, or of the smaller one whose
    times are estimated."""
    if timed:
        for size, length in itertools.product(("base", "large"), TIMED_LENGTHS):
            yield _command("step", size, TIMED_SLICE, length)
        return
    for size, topology, length in itertools.product(("base", "large"), SLICES, SHARDS):
        yield [*_command("step", size, topology, length), "--quick"]
    for topology, length in itertools.product(SLICES[:2], SHARDS):
        yield [*_command("encoder", "base", topology, length), "--quick"]


def _command(part: str, size: str, topology: str, length: int) -> list[str]:
    chips = parse_topology(topology).size
    return [
        f"--config=configs/pretrain/{size}.py",
        f"--topology={topology}",
        f"--part={part}",
        f"--config.mesh.sequence={SHARDS[length]}",
        f"--config.data.input_length={length}",
        # Enough sentinels; the compiled step does not depend on them.
        "--config.data.extra_ids=8000",
        f"--config.train.batch_size={chips // SHARDS[length]}",
        "--config.samples=0",
    ]


def main(argv: Sequence[str]) -> None:
    """Appends what the file lacks, one compilation after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pods", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("pods.jsonl"), metavar="FILE")
    parser.add_argument(
        "--times",
        action="store_true",
        help="a smaller grid, compiled fully, whose lines have the milliseconds of a step",
    )
    options = parser.parse_args(argv)
    output = options.output
    try:
        check_output(output, "--output")
    except ConfigError as error:
        parser.error(str(error))
    lines = output.read_text().splitlines() if output.is_file() else []
    done = [set(json.loads(line)["command"]) for line in lines]
    for command in commands(options.times):
        if set(command) in done:
            continue
        print(" ".join(command), flush=True)
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            # In a process of its own, whose memory goes back when it ends.
            program = [sys.executable, "-m", "pretrain.compile", *command, f"--json={report}"]
            subprocess.run(program, check=True)
            line = {"command": command, **json.loads(report.read_text())}
        with output.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
