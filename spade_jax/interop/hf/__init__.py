"""Checkpoints in the layout of Hugging Face: T5, T5 v1.1 and LongT5 as the start of a SPADE."""
