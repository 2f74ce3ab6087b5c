"""Writes a run's page anew, from what is in its workdir: `python -m spade_jax.report RUN`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from spade_jax.programs import exit_status, make_parser, quiet_imports

DESCRIPTION = """\
Writes report.html in the workdir of a run, as the run itself does at its end: metrics beside the
baseline, curves, predictions, samples, data, time and settings. Trains nothing, and reads files of
the workdir alone; a run that is at work, or was stopped, has a page of what there is so far.
"""


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a file that is damaged, 2 for a folder that is no run's."""

    def program() -> int:
        parser = make_parser("spade_jax.report", DESCRIPTION)
        parser.add_argument("run", metavar="RUN", help="a workdir")
        options = parser.parse_args(argv)
        with quiet_imports():
            from spade_jax.report.page import write_report

        print(write_report(Path(options.run)))
        return 0

    return exit_status(program, "the report")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
