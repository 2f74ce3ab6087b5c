"""Goes on from positions that another process saved; ends while documents are being read.

Arguments: a folder with settings and positions of streams "one" and "two", then the positions.
Prints the fingerprint of the 40 batches behind each.
"""

import json
import sys
from pathlib import Path

from streams import fingerprint, take

from spade_jax.config import from_dict
from spade_jax.data.config import DataConfig
from spade_jax.data.pipeline import train_batches, validation_batches

folder, *positions = sys.argv[1:]
for name in ("one", "two"):
    config = from_dict(DataConfig, json.loads(Path(folder, f"{name}.json").read_text()))
    batches = train_batches(config, 4)
    for position in positions:
        batches.set_state(Path(folder, f"{name}{position}").read_bytes())
        print(fingerprint(take(batches, 40)))

# tf.data reads ahead in threads that call Python, which must not hold up its end.
shipped = train_batches(DataConfig(), 2)
held_out = iter(validation_batches(DataConfig(), 2))
print(len(next(shipped)), len(next(held_out)))
