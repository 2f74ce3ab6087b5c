"""Sources read to their ends."""

import seqio

from spade_jax.data.config import SourceConfig
from spade_jax.data.sources import DocumentSource, iterate_documents


def text_source(path, **changes) -> SourceConfig:
    return SourceConfig(kind="text", train=str(path), **changes)


def read(config: SourceConfig, split: str = "train") -> list[str]:
    return [document.decode() for document in iterate_documents(config, split)]


def shard_texts(source: DocumentSource, num_shards: int, **options) -> list[list[str]]:
    return [
        [
            example["text"].decode()
            for example in source.get_dataset(
                "train", shard_info=seqio.ShardInfo(i, num_shards), **options
            ).as_numpy_iterator()
        ]
        for i in range(num_shards)
    ]
