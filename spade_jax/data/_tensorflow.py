"""The one door through which TensorFlow comes in: quiet, and blind to accelerators."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

# JAX owns the accelerators; TensorFlow would reserve their memory.
tf.config.set_visible_devices([], "GPU")
tf.config.set_visible_devices([], "TPU")

__all__ = ["tf"]
