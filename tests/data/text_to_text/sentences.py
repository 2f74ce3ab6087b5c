"""Cells of rows, and the pairs that they make."""

from spade_jax.data.text_to_text.registry import TASKS

A, B = "The cat sat.", "A cat sat down."
BOTH = f"sentence1: {A} sentence2: {B}"
SENTENCES = {"sentence1": A, "sentence2": B}


def pair(task: str, row: dict, **options) -> tuple[str, str]:
    return TASKS[task].pair(row, **options)
