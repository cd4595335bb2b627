"""Why a GGUF file cannot be loaded: its header, read as far as it goes. Imports nothing of agentflow.

The layout is that of the GGUF specification, version 3, of the ggml project: magic, version, counts, metadata, then for
each tensor its name, shape, type and where its data begins.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final

_MAGIC: Final = b"GGUF"
# Bytes of a metadata value, by the number of its type; 8 is text, 9 a list.
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _LIST = 8, 9
_ALIGNMENT: Final = b"general.alignment"


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF file does."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def fault(path: Path) -> str:
    """What is wrong with a GGUF file that could not be loaded, as far as its header tells."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            last = _last_tensor(file)
    except (EOFError, OverflowError, ValueError, MemoryError):
        return f"it ends within its header, after {size:,} bytes: it is truncated or damaged"
    if last >= size:
        return f"it ends after {size:,} bytes, and its last tensor begins at {last:,}: it is truncated"
    return "it is damaged, or of an architecture or a quantisation that this llama.cpp does not know"


def _last_tensor(file: BinaryIO) -> int:
    """Where the last tensor begins."""
    if _read(file, 4) != _MAGIC:
        raise ValueError("no GGUF file")
    _, tensors, values = struct.unpack("<IQQ", _read(file, 20))
    alignment = 32
    for _ in range(values):
        name = _text(file)
        (kind,) = struct.unpack("<I", _read(file, 4))
        at = file.tell()
        _skip(file, kind)
        if name == _ALIGNMENT and kind == 4:
            file.seek(at)
            (alignment,) = struct.unpack("<I", _read(file, 4))
    last = 0
    for _ in range(tensors):
        _text(file)
        (dimensions,) = struct.unpack("<I", _read(file, 4))
        _read(file, 8 * dimensions + 4)
        (offset,) = struct.unpack("<Q", _read(file, 8))
        last = max(last, offset)
    return -(-file.tell() // max(alignment, 1)) * max(alignment, 1) + last


def _skip(file: BinaryIO, kind: int) -> None:
    if kind == _TEXT:
        _text(file)
    elif kind == _LIST:
        inner, count = struct.unpack("<IQ", _read(file, 12))
        if inner in _SIZES:
            _read(file, _SIZES[inner] * count)
        elif inner == _TEXT:
            for _ in range(count):
                _text(file)
        else:
            raise ValueError("lists of lists are not read")
    elif kind in _SIZES:
        _read(file, _SIZES[kind])
    else:
        raise ValueError(f"no such type of value: {kind}")


def _text(file: BinaryIO) -> bytes:
    (length,) = struct.unpack("<Q", _read(file, 8))
    return _read(file, length)


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data
