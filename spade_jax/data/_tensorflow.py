"""The one door through which TensorFlow comes in, blind to accelerators."""

import tensorflow as tf

# JAX owns the accelerators; TensorFlow would reserve their memory.
tf.config.set_visible_devices([], "GPU")

__all__ = ["tf"]
