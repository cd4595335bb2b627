from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from agentflow.errors import SourceError
from agentflow.image_tokens import rule_for, sees_images
from agentflow.images import image_of, read_image
from agentflow.messages import Image, Message, Request
from agentflow.tokens import TokenCounter


def made(form: str, width: int = 40, height: int = 30) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (width, height), "teal").save(file, form)
    return file.getvalue()


def sized(width: int, height: int, detail: str = "auto") -> Image:
    return Image(b"", "image/png", width, height, detail)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_each_format_is_read_with_its_size_and_its_very_bytes(tmp_path: Path, form: str) -> None:
    file = tmp_path / "picture"
    file.write_bytes(made(form))
    image = read_image(file, detail="low")
    assert (image.media_type, image.width, image.height, image.detail) == (f"image/{form.lower()}", 40, 30, "low")
    assert image.data == file.read_bytes()


def test_what_is_no_picture_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "photo.bmp").write_bytes(made("BMP"))
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (
        ("text.png", "not a whole PNG, JPEG, WebP or GIF file"),
        ("empty.png", "is empty"),
        ("photo.bmp", "not a whole PNG"),
        ("pipe.png", "not a plain file"),
        ("none.png", "No such file"),
        (".", "cannot be read|not a plain file"),
    ):
        with pytest.raises(SourceError, match=reason):
            read_image(tmp_path / name)


def test_a_file_that_is_too_large_or_claims_to_be_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(made("PNG"))
    with pytest.raises(SourceError, match="more than 50 bytes"):
        read_image(file, most_bytes=50)
    bomb = bytearray(made("PNG"))
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)
    with pytest.raises(SourceError, match=r"60,000 x 60,000|not a whole PNG"):
        image_of(bytes(bomb))


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]), st.data())
def test_a_broken_file_is_an_image_or_a_source_error_and_nothing_else(form: str, data: st.DataObject) -> None:
    whole = bytearray(made(form))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = image_of(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except SourceError as error:
        assert "\n" not in str(error)
    else:
        assert image.width > 0 < image.height


@pytest.mark.parametrize(
    ("model", "image", "tokens"),
    [
        # OpenAI's guide works these out: 4 tiles, 6 tiles, and one that is not looked at closely.
        ("openai/gpt-4o", sized(1024, 1024), 765),
        ("gpt-4o", sized(2048, 4096), 1105),
        ("gpt-4o", sized(2048, 4096, "low"), 85),
        ("o3", sized(1024, 1024), 75 + 4 * 150),
        ("gpt-4.1-nano", sized(1024, 1024), 2520),
        # Billed as 1,536 patches times 1.62, where the guide's own formula says less.
        ("gpt-4.1-mini", sized(4000, 1474), 2489),
        # Anthropic's table: 1,000 x 1,000 is about 1,334 tokens.
        ("claude-3-5-sonnet", sized(1000, 1000), 1334),
        ("gemini-2.0-flash", sized(300, 300), 258),
        ("gemini-2.0-flash", sized(960, 540), 7 * 258),
        ("qwen2.5-vl-7b", sized(280, 280), 102),
        ("nobodys-model", sized(280, 280), 3328),
    ],
)
def test_an_image_costs_what_its_family_says(model: str, image: Image, tokens: int) -> None:
    assert rule_for(model)(image) == tokens


@given(st.sampled_from(["gpt-4o", "gpt-4.1-mini", "claude-3-opus", "gemini-2", "qwen2-vl"]),
       st.integers(1, 16_000), st.integers(1, 16_000))  # fmt: skip
def test_no_image_is_free_and_a_rule_never_fails(model: str, width: int, height: int) -> None:
    tokens = rule_for(model)(sized(width, height))
    assert 0 < tokens < 250_000


def test_images_are_part_of_the_prompt_and_of_its_bound() -> None:
    counter = TokenCounter.for_model("gpt-4o")
    plain = Request((Message("user", "What is it?"),))
    seen = Request((Message("user", "What is it?", images=(sized(1024, 1024), sized(1024, 1024))),))
    assert counter.prompt(seen) - counter.prompt(plain) == 2 * 765
    assert counter.prompt_bound(seen) - counter.prompt_bound(plain) == 2 * 765
    assert (counter.usage(seen, "A").images, counter.usage(seen, "A").source) == (2, "estimate")


def test_models_that_see_are_known_by_their_names() -> None:
    assert all(
        map(sees_images, ("gpt-4o-mini", "openai/gpt-5", "claude-sonnet-4-5", "gemini-2.5-pro", "Qwen2.5-VL-7B"))
    )
    assert not any(map(sees_images, ("llama-3.1-8b", "o3-mini", "mistral-large", "small")))
