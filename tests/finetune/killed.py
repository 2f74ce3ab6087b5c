"""The program, which kills itself with SIGKILL at the moment that its first argument names."""

import os
import signal
import sys

from finetune import finish as the_end
from finetune.__main__ import main
from finetune.evaluation import Evaluator
from spade_jax import files
from spade_jax.runs import checkpoints, results, workdir

moment = sys.argv[1]
evaluations = 0


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def predict(self, params, examples):
    global evaluations
    evaluations += 1
    predictions = begin_to_predict(self, params, examples)
    if moment == "in the middle of the second evaluation" and evaluations == 2:
        kill()
    return predictions


def write(self, kind, step, values):
    if moment == "between two checkpoints" and step == 7:
        kill()
    add_line(self, kind, step, values)


def finalize(self, directory):
    if moment == "while a checkpoint is written":
        kill()
    end_save(self, directory)


def replace_file(path, text):
    if moment == "while predictions are written" and path.name == "predictions-test.jsonl":
        files.unfinished(path).write_text(text[: len(text) // 2])
        kill()
    put_in_place(path, text)


def write_results(*arguments):
    if moment == "before the results are written":
        kill()
    finish(*arguments)


begin_to_predict, Evaluator.predict = Evaluator.predict, predict
add_line, workdir.Records.write = workdir.Records.write, write
end_save, checkpoints._PositionHandler.finalize = (
    checkpoints._PositionHandler.finalize,
    finalize,
)
put_in_place, results.replace_file = results.replace_file, replace_file
finish, the_end.write_results = the_end.write_results, write_results
sys.exit(main(sys.argv[2:]))
