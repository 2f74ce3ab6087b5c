"""Weights in and out: the authors' models, T5 and LongT5, and what other programs read."""
