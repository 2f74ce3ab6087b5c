"""Run by test_compiled.py in its own process: the command, and then the report that it wrote."""

import contextlib
import io
import sys
from pathlib import Path

from pretrain.compile import main

config, file, *topology = sys.argv[1:]
with contextlib.redirect_stdout(io.StringIO()) as printed:
    status = main(
        [
            config,
            f"--topology={topology[0] if topology else 'cpu:8'}",
            "--config.mesh.sequence=2",
            f"--json={file}",
        ]
    )
assert status == 0
assert "in all" in printed.getvalue()
print(Path(file).read_text())
