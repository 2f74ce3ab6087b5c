"""A corpus of a few files."""

from pathlib import Path

import pytest
from corpora import make_documents, write_lines


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Three training files of 12 documents each (seeds 0, 1, 2), one of validation (seed 9)."""
    directory = tmp_path_factory.mktemp("corpus")
    write_lines(directory / "train0.txt", make_documents(12, 0))
    write_lines(directory / "train1.txt.gz", make_documents(12, 1))
    write_lines(directory / "train2.txt", make_documents(12, 2))
    write_lines(directory / "validation.txt", make_documents(7, 9))
    return directory
