"""The Tasks of pre-training, and their names."""

import dataclasses

import seqio

from spade_jax.data.config import DenoiserConfig, SourceConfig
from spade_jax.data.denoising import denoising_mixture, denoising_task


def test_equal_definitions_share_a_name(config):
    denoiser = config.denoisers[0]
    task = denoising_task(config.sources[0], denoiser, config)
    assert seqio.TaskRegistry.get(task.name) is task
    again = dataclasses.replace(config, seed=7)
    assert denoising_task(again.sources[0], DenoiserConfig(), again) is task
    assert denoising_mixture(again) is denoising_mixture(config)
    names = {
        denoising_mixture(dataclasses.replace(config, **change)).name
        for change in (
            {},
            {"input_length": 65},
            {"extra_ids": 101},
            {"shuffle_buffer": 5},
            {"document_shuffle_buffer": 5},
            {"denoisers": (DenoiserConfig(0.2),)},
            {"denoisers": (DenoiserConfig(), DenoiserConfig(weight=2.0))},
            {"denoisers": (DenoiserConfig(), DenoiserConfig(weight=3.0))},
            {"sources": (SourceConfig(),)},
        )
    }
    assert len(names) == 9
