"""The program, which kills itself with SIGKILL at the moment that its first argument names."""

import os
import signal
import sys

from pretrain import program
from pretrain.__main__ import main
from spade_jax.runs import checkpoints, workdir

moment = sys.argv[1]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_a_line(self, kind, step, values):
    if moment == "before the first step is recorded":
        kill()
    if moment == "in the middle of a line" and (kind, step) == ("train", 6):
        self._file.write('{"kind": "train", "st')
        self._file.flush()
        kill()
    write(self, kind, step, values)


def evaluation(*arguments):
    result = evaluate(*arguments)
    if moment == "at the end of an evaluation":
        kill()
    return result


def finalize(self, directory):
    # The train state is written, the step's directory still has its temporary name.
    if moment == "between two files of a save" and directory.parent.name.startswith("16."):
        kill()
    finish(self, directory)


def save(self, step, *arguments):
    begin_to_save(self, step, *arguments)
    if moment == "when the last save has begun" and step == 24:
        kill()


write, workdir.Records.write = workdir.Records.write, before_a_line
evaluate, program.evaluate = program.evaluate, evaluation
begin_to_save, checkpoints.Checkpoints.save = checkpoints.Checkpoints.save, save
finish, checkpoints._PositionHandler.finalize = checkpoints._PositionHandler.finalize, finalize
sys.exit(main(sys.argv[2:]))
