"""Images read from files, for messages: bounded, checked, and never decoded. Imports messages, errors.

A file's header says its format and its size in pixels; Pillow reads it, and is imported on first use. What an image
costs in tokens is ``image_tokens``.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path
from typing import Final, Literal

from agentflow.errors import SourceError
from agentflow.messages import Image

# Formats that the large providers take (OpenAI, Anthropic, Google, 2026-06), by Pillow's names of them.
_MEDIA_TYPES: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
# A page of A3 at 600 dots per inch has 70 million pixels; a small file that claims more is a decompression bomb.
_MOST_PIXELS: Final = 100_000_000
_LONGEST_SIDE: Final = 16_384
MOST_BYTES: Final = 20_000_000


def read_image(
    path: str | Path, *, detail: Literal["auto", "low", "high"] = "auto", most_bytes: int = MOST_BYTES
) -> Image:
    """Read a PNG, JPEG, WebP or GIF file as an image of a message.

    Args:
        path: the file.
        detail: how closely a model is asked to look, where it can be asked.
        most_bytes: a larger file is refused.

    Raises:
        SourceError: the file is missing, not a plain file, too large, of no known format or broken. The message says
            which, and never repeats what is in it.

    Example:
        >>> Message("user", "What does it say?", images=(read_image("sign.png"),))     # doctest: +SKIP
    """
    file = Path(path)
    return image_of(_bytes(file, most_bytes), detail=detail, name=str(file))


def image_of(data: bytes, *, detail: Literal["auto", "low", "high"] = "auto", name: str = "The image") -> Image:
    """Bytes that someone sent, as an image of a message.

    Args:
        data: the whole file.
        detail: how closely a model is asked to look, where it can be asked.
        name: what messages of errors call it.

    Raises:
        SourceError: the bytes are of no known format, broken, or claim to be larger than any picture is.
    """
    if not data:
        raise SourceError(f"{name} is empty. Give a PNG, JPEG, WebP or GIF file.")
    form, width, height = _header(data, name)
    if not (0 < width <= _LONGEST_SIDE and 0 < height <= _LONGEST_SIDE and width * height <= _MOST_PIXELS):
        raise SourceError(
            f"{name} says it has {width:,} x {height:,} pixels; at most {_LONGEST_SIDE:,} a side and {_MOST_PIXELS:,} "
            "in all are taken. Scale it down."
        )
    return Image(data, _MEDIA_TYPES[form], width, height, detail)


def _bytes(file: Path, most_bytes: int) -> bytes:
    """A plain file's bytes: a pipe or device in its place is neither waited for nor read."""
    try:
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as opened:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise SourceError(f"{file} is not a plain file. Give a PNG, JPEG, WebP or GIF file.")
            data = opened.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{file} cannot be read: {reason}. Check the path.") from error
    if len(data) > most_bytes:
        raise SourceError(f"{file} has more than {most_bytes:,} bytes. Scale it down, or raise most_bytes.")
    return data


def _header(data: bytes, name: str) -> tuple[str, int, int]:
    """Format, width and height, by the header alone: no pixel is decoded."""
    from PIL import Image as Pillow

    try:
        with warnings.catch_warnings():
            # Its own warning of large pictures: our limits are tighter.
            warnings.simplefilter("ignore")
            with Pillow.open(io.BytesIO(data), formats=tuple(_MEDIA_TYPES)) as opened:
                return str(opened.format), *opened.size
    except Exception as error:
        # A hostile file makes readers fail in any way there is.
        raise SourceError(
            f"{name} is not a whole PNG, JPEG, WebP or GIF file ({type(error).__name__}). Save it as one of these."
        ) from error
