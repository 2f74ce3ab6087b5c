"""Small corpora whose documents can be told apart."""

import gzip
from pathlib import Path

import numpy as np

WORDS = ("union", "senate", "café", "treaty", "of", "the", "and", "river", "peace", "commerce")


def make_documents(count: int, seed: int) -> list[str]:
    """Documents of 20 to 60 words, each beginning with a number of its own."""
    rng = np.random.default_rng(seed)
    return [
        f"{seed}#{i} " + " ".join(rng.choice(WORDS, rng.integers(20, 60))) for i in range(count)
    ]


def write_lines(path: Path, lines: list[str]) -> Path:
    data = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
