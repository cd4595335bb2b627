"""Tokens of an image, by the rules that model families document. Imports messages.

Every rule errs upwards where the provider's own rounding is not published, because a hold is made with it; what is
charged in the end is what the provider counted. Sources: OpenAI's guide to images and vision (2025-08; the larger of
the documented and the billed multiplier), Anthropic's guide to vision (2026-05), Google's guide to image understanding
and to media resolution (2026-05), the model cards of Qwen2-VL and Qwen3-VL.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentflow.messages import Image

Rule = Callable[[Image], int]


@dataclass(frozen=True, slots=True)
class Tiles:
    """OpenAI's squares of 512 pixels: fitted into 2,048 x 2,048, the shorter side scaled down to 768, then counted.

    ``base`` tokens for any image, ``tile`` for each square; of detail ``low``, the base alone.
    """

    base: int
    tile: int

    def __call__(self, image: Image) -> int:
        """Tokens of this image."""
        if image.detail == "low":
            return self.base
        width, height = _within(image.width, image.height, 2048)
        scale = min(1.0, 768 / min(width, height))
        return self.base + self.tile * _cover(width * scale, 512) * _cover(height * scale, 512)


@dataclass(frozen=True, slots=True)
class Patches:
    """OpenAI's and Qwen's patches of ``side`` pixels, at most ``most`` of them, times a model's own factor."""

    side: int
    most: int
    factor: float = 1.0
    least: int = 1
    frame: int = 0

    def __call__(self, image: Image) -> int:
        """Tokens of this image; one that is scaled down is counted with as many patches as there may be."""
        patches = _cover(image.width, self.side) * _cover(image.height, self.side)
        return math.ceil(min(max(patches, self.least), self.most) * self.factor) + self.frame


def anthropic(longest: int) -> Rule:
    """Anthropic: width x height / 750, or patches of 28 pixels, whichever is more, once the longer side fits."""

    def tokens(image: Image) -> int:
        width, height = _within(image.width, image.height, longest)
        return max(math.ceil(width * height / 750), _cover(width, 28) * _cover(height, 28))

    return tokens


def gemini(image: Image) -> int:
    """Gemini 2: 258 up to 384 x 384 pixels; else 258 a tile, and one for the whole.

    A tile's side is two thirds of the image's shorter side, 256 to 768 pixels.
    """
    if max(image.width, image.height) <= 384:
        return 258
    side = min(max(min(image.width, image.height) * 2 // 3, 256), 768)
    return 258 * (1 + _cover(image.width, side) * _cover(image.height, side))


def gemini_3(image: Image) -> int:
    """Gemini 3: a fixed count by media resolution, high unless it is asked for less."""
    return 1_120


def unknown(image: Image) -> int:
    """A bound for families whose rule is not known: 12 tiles of 256 and one for the whole, or Qwen's, whatever is more.

    Assumed: no family in common use takes more for a picture (LLaVA-NeXT takes 2,880, InternVL 3,328).
    """
    return max(13 * 256, _QWEN(image))


_QWEN: Final = Patches(28, 16_384, least=4, frame=2)
# By the beginning of the model's name, the most particular first.
_FAMILIES: Final[tuple[tuple[str, Rule], ...]] = (
    ("gpt-4o-mini", Tiles(2_833, 5_667)),
    ("gpt-4.1-mini", Patches(32, 1_536, 1.62)), ("gpt-4.1-nano", Patches(32, 1_536, 2.46)),
    ("o4-mini", Patches(32, 1_536, 1.72)),
    ("gpt-5-mini", Patches(32, 1_536, 1.62)), ("gpt-5-nano", Patches(32, 1_536, 2.46)),
    # Billed a fifth above the documented tiles.
    ("gpt-5.", Tiles(84, 168)),
    ("gpt-4o", Tiles(85, 170)), ("chatgpt-4o", Tiles(85, 170)), ("gpt-4.1", Tiles(85, 170)),
    ("gpt-4.5", Tiles(85, 170)), ("gpt-4-turbo", Tiles(85, 170)), ("gpt-4-vision", Tiles(85, 170)),
    ("gpt-5", Tiles(70, 140)), ("o1", Tiles(75, 150)), ("o3", Tiles(75, 150)),
    ("claude-3", anthropic(1_568)), ("claude", anthropic(2_576)),
    ("gemini-3", gemini_3), ("gemini", gemini),
    ("qwen2-vl", _QWEN), ("qwen2.5-vl", _QWEN), ("qwen-vl", _QWEN), ("qwen3-vl", Patches(32, 16_384, least=4, frame=2)),
)  # fmt: skip
# Families that take images and whose rule is not written down here; and members of families above that take none.
_SEEING: Final = (
    "-vl", "llava", "pixtral", "internvl", "gemma-3-", "llama-4", "llama-3.2-11b-vision", "minicpm-v", "vision"
)  # fmt: skip
_BLIND: Final = ("o1-mini", "o1-preview", "o3-mini", "gpt-4o-audio", "gpt-4o-transcribe", "gpt-4o-mini-audio",
                 "gpt-4o-mini-transcribe")  # fmt: skip


def rule_for(model: str) -> Rule:
    """The rule of a model, by the last part of its name.

    Example:
        >>> rule_for("openai/gpt-4o")(Image(b"", "image/png", 1024, 1024))
        765
    """
    name = model.rsplit("/", 1)[-1].lower()
    return next((rule for family, rule in _FAMILIES if name.startswith(family)), unknown)


def sees_images(model: str) -> bool:
    """Whether a model of this name is known to take images."""
    name = model.rsplit("/", 1)[-1].lower()
    if name.startswith(_BLIND):
        return False
    return rule_for(name) is not unknown or any(mark in name for mark in _SEEING)


def _within(width: float, height: float, longest: int) -> tuple[float, float]:
    scale = min(1.0, longest / max(width, height))
    return width * scale, height * scale


def _cover(length: float, side: int) -> int:
    """How many pieces cover a length; a hair of floating point is no piece."""
    return max(1, math.ceil(length / side - 1e-9))
