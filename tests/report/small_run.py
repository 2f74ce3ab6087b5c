"""A workdir as a run leaves it, of texts that look like markup."""

import json

from spade_jax.runs.results import write_predictions, write_results
from spade_jax.runs.workdir import Records
from spade_jax.telemetry.samples import Sample

SCRIPT = "<script>document.title = 'taken'</script> & \"more\""


def write_run(workdir):
    """Two evaluations, a change, and predictions of classes and of numbers."""
    settings = {"train": {"steps": 20, "batch_size": 2, "best_metric": "accuracy"}, "note": SCRIPT}
    records = Records(workdir, 0, settings)
    timing = {"goodput": 0.5, "lost/compile": 0.25, "tokens_per_second": 900.0}
    for step, seconds in ((10, 8.0), (20, 4.0)):  # It was started twice.
        own = {"loss": 30.0 / step, "seconds": seconds, "seconds_per_step": 0.25, **timing}
        records.write("train", step, own)
        samples = [Sample(SCRIPT, "yes", f"guess {step}", "probability 0.70")]
        records.samples(step, samples)
        records.write("eval", step, {"loss": 2.5, "accuracy": 10 / step, "seconds": 1.0})
    records.change(10, {"train.steps": (10, 20)})
    records.draw(None, 10)
    records.close()
    classes = [(SCRIPT, "yes", "yes"), ("b", "no", "yes"), ("c", "no", SCRIPT), ("d", "no", "no")]
    numbers = [(f"of {i}", f"{i / 2}", f"{i / 2 + 0.25}") for i in range(9)]
    write_predictions(workdir / "predictions-validation.jsonl", classes)
    write_predictions(workdir / "predictions-test.jsonl", [*numbers, ("of", "3", "nan")])
    splits = {
        "validation": {
            "metrics": {"loss": 1.25, "accuracy": 0.5},
            "intervals": {"accuracy": [0.25, 0.75]},
            "examples": 4,
            "baseline": {"method": f"most common {SCRIPT}", "metrics": {"accuracy": 0.75}},
        }
    }
    about = [("validation", "classes", ["no", "yes"]), ("test", "numbers", [])]
    sets = [
        {
            "name": split,
            "split": split,
            "file": f"predictions-{split}.jsonl",
            "kind": kind,
            "labels": labels,
        }
        for split, kind, labels in about
    ]
    write_results(workdir, {"step": 10, "splits": splits, "sets": sets})
    facts = {
        "program": "finetune",
        "data": [{"set": SCRIPT, "split": "train", "examples": 1234}],
        "notes": [f"What is said of {SCRIPT}"],
        "files": {"task.train": {SCRIPT: "0123"}},
        "parameters": 10,
        "trained": 9,
        "devices": "1 x cpu",
        "processes": 1,
        "versions": {"jax": "1"},
    }
    (workdir / "facts.json").write_text(json.dumps(facts))
