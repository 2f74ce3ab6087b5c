"""What the environment says of other processes, and how it can be wrong."""

import jax
import pytest

from spade_jax import hosts
from spade_jax.config import ConfigError
from spade_jax.config.hosts import HostsConfig

NAMES = ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "TPU_WORKER_HOSTNAMES")


@pytest.fixture
def environment(monkeypatch):
    """Sets variables; those of clusters are not set otherwise."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    # As it is after the test, too.
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    monkeypatch.setattr(jax.distributed, "initialize", met)
    return lambda **variables: [monkeypatch.setenv(*item) for item in variables.items()]


class Met(Exception):
    """Processes would meet now."""


def met(*arguments, **more):
    raise Met


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OMPI_COMM_WORLD_SIZE": ""},
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    ],
)
def test_one_process_meets_nobody(environment, variables):
    environment(**variables)
    hosts.join(HostsConfig())


@pytest.mark.parametrize("name", NAMES[:2])
def test_several_processes_meet(environment, name):
    environment(**{name: "2"})
    with pytest.raises(Met):
        hosts.join(HostsConfig())


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SLURM_STEP_NUM_TASKS": "abc"}, "SLURM_STEP_NUM_TASKS = 'abc': must be a whole number"),
        ({"OMPI_COMM_WORLD_SIZE": "-3"}, "OMPI_COMM_WORLD_SIZE = -3: must be at least 1"),
        ({"OMPI_COMM_WORLD_SIZE": "9" * 5000}, "OMPI_COMM_WORLD_SIZE = '9"),
        (
            {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "x"},
            "SLURM_PROCID = 'x': must be a whole number",
        ),
    ],
)
def test_wrong_numbers_are_named(environment, variables, message):
    environment(**variables)
    with pytest.raises(ConfigError) as refused:
        hosts.join(HostsConfig())
    assert str(refused.value).startswith(message)


def test_an_environment_of_no_cluster_is_said(environment, monkeypatch):
    def initialize(*arguments, **more):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ConfigError, match=r"must be set by --coordinator, --processes and "):
        hosts.join(HostsConfig(distributed=True))
