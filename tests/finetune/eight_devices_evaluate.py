"""Run by test_evaluation_sets.py with eight forced CPU devices; prints what it found as JSON."""

import json
import sys
from pathlib import Path

import jax
from scoring import DECODINGS, evaluation_of, make_sets

assert jax.device_count() == 8
metrics, predictions = evaluation_of(make_sets(Path(sys.argv[1])), 8, DECODINGS["greedy"])
print(json.dumps({"metrics": metrics, "predictions": predictions}))
