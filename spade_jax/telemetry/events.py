"""TensorBoard event files, written without TensorFlow or TensorBoard.

Their own writers, and clu's on top of them, import TensorFlow, which training does without, and
cannot hide the steps that a resumed run repeats. A file is a sequence of TFRecords, each an `Event`
protocol buffer. Only what scalars and texts need is here:
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path


class EventWriter:
    """Appends scalars and texts to a new event file in `directory`.

    TensorBoard hides what earlier files of the directory hold at `first_step` and beyond, so that
    a resumed run shows each step once.
    """

    def __init__(self, directory: Path, first_step: int):
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = (directory / name).open("ab")
        self._write(_bytes(3, b"brain.Event:2"))
        start = _varint(1 << 3) + _varint(1)  # SessionLog.status = START
        self._write(_varint(2 << 3) + _varint(first_step) + _bytes(7, start))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one value for each tag."""
        summary = b"".join(
            _bytes(1, _bytes(1, tag.encode()) + struct.pack("<Bf", 2 << 3 | 5, value))
            for tag, value in values.items()
        )
        self._write(_varint(2 << 3) + _varint(step) + _bytes(5, summary))

    def texts(self, step: int, values: Mapping[str, str]) -> None:
        """Writes one text, in Markdown, for each tag."""
        plugin = _bytes(1, _bytes(1, b"text"))  # SummaryMetadata.plugin_data.plugin_name
        summary = b"".join(
            _bytes(1, _bytes(1, tag.encode()) + _bytes(9, plugin) + _bytes(8, _string(text)))
            for tag, text in values.items()
        )
        self._write(_varint(2 << 3) + _varint(step) + _bytes(5, summary))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: bytes) -> None:
        event = struct.pack("<Bd", 1 << 3 | 1, time.time()) + event
        length = struct.pack("<Q", len(event))
        self._file.write(length + _masked_crc(length) + event + _masked_crc(event))
        self._file.flush()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def _bytes(field: int, value: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _string(text: str) -> bytes:
    """A TensorProto without axes: its type, DT_STRING, its shape and its value."""
    return _varint(1 << 3) + _varint(7) + _bytes(2, b"") + _bytes(8, text.encode())


def _crc_table() -> list[int]:
    """CRC-32C (Castagnoli, reflected) of each byte."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


def _masked_crc(data: bytes) -> bytes:
    """TFRecord's checksum: the CRC-32C, rotated and shifted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
