"""Text in, batches of numpy arrays out: the only place that imports TensorFlow or seqio.

`config` and `task_config` import neither. `pipeline` is where pre-training meets data: `sources`
read documents, `denoising` makes seqio Tasks of them, `cache` keeps their tokens. `text_to_text` is
where fine-tuning does, `classification` where classifiers do; `lra` makes data of the Long Range
Arena, `preview` shows what data is like.
"""

import os

# Before TensorFlow is imported, or it greets every program with lines about CUDA.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
