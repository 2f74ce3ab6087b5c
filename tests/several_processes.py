"""Runs of several processes on loopback, started by the launch script."""

import subprocess
import sys
import time

from spade_jax.runs.workdir import read_metrics


def command(program, *options, processes=2):
    """A program on four devices in all, of which each process has its part."""
    return [
        *(sys.executable, "-m", "pretrain.launch.local"),
        *(f"--processes={processes}", f"--cpu_devices={4 // processes}", "--", program),
        *options,
    ]


class Running:
    """A run of two processes in the background."""

    def __init__(self, program, workdir, *options):
        self.workdir = workdir
        self.begun = time.time()
        self.process = subprocess.Popen(
            command(program, f"--workdir={workdir}", *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def at_step(self, step):
        """Waits until it has trained so far."""
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and self.process.poll() is None:
            path = self.workdir / "metrics.jsonl"
            # Which a start rewrites: before, it may hold what an earlier run had not saved.
            fresh = path.exists() and path.stat().st_mtime > self.begun
            lines = read_metrics(path) if fresh else []
            if lines and lines[-1]["step"] >= step:
                return self
            time.sleep(0.2)
        self.process.terminate()
        raise AssertionError(self.process.communicate()[0])

    def worker(self, number):
        """The id of one of its processes."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", "--", f"--process={number}"],
            capture_output=True,
            text=True,
        )
        return int(found.stdout.split()[0])

    def end(self):
        """Its status, and all that it said."""
        said = self.process.communicate(timeout=120)[0]
        return self.process.returncode, said
