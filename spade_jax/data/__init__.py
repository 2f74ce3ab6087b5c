"""Text in, batches of numpy arrays out: the only place that imports TensorFlow or seqio.

`config` imports neither; `pipeline` is where training meets data.
"""

import os

# Before TensorFlow is imported, or it greets every program with lines about CUDA.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
