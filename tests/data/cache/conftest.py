"""A cache of the small corpus."""

import dataclasses
import shutil

import pytest
from caches import make

from spade_jax.data.config import DataConfig


@pytest.fixture(scope="session")
def config(direct, tmp_path_factory) -> DataConfig:
    return make(direct, tmp_path_factory.mktemp("cache") / "whole")


@pytest.fixture
def copy(config, tmp_path) -> DataConfig:
    """A cache to do damage to."""
    shutil.copytree(config.cache, tmp_path / "copy")
    return dataclasses.replace(config, cache=str(tmp_path / "copy"))
