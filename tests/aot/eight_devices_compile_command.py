"""Run by test_compiled.py in its own process: the command, and then the report that it wrote."""

import contextlib
import io
import sys
from pathlib import Path

from pretrain.compile import main

config, file, *more = sys.argv[1:]
topology, *more = more or ["cpu:8"]
with contextlib.redirect_stdout(io.StringIO()) as printed:
    status = main(
        [
            config,
            f"--topology={topology}",
            "--config.mesh.sequence=2",
            f"--json={file}",
            *more,
        ]
    )
assert status == 0
assert "in all" in printed.getvalue()
print(Path(file).read_text())
