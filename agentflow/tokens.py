"""Counting tokens without a network: tiktoken's tables where they are at hand, characters where they are not.

A count is exact for the models whose table it uses and a factor-corrected estimate for the others; a hold uses
``prompt_bound``, which errs upwards. tiktoken is imported on the first count. May import messages.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentflow.messages import Message, Request, TokenUsage

if TYPE_CHECKING:
    import tiktoken

# OpenAI's published chat format, o200k and cl100k: 3 tokens frame every message, 3 prime the reply.
_PER_MESSAGE = 3
_REPLY_PRIMER = 3
_CHARACTERS_PER_TOKEN = 3.5
_CUT = 20_000

# Tokens of a family against cl100k_base on 110 kB of Markdown, measured with the families' own tokenizers
# (mid-2026). One kind of text only, so a bound adds a margin.
_FAMILIES: tuple[tuple[str, float], ...] = (
    ("llama-3", 1.000), ("llama3", 1.000), ("qwen", 1.024), ("command-r", 1.117), ("claude", 1.11), ("gemma", 1.122),
    ("gemini", 1.122), ("deepseek", 1.160), ("falcon", 1.237), ("mpt", 1.155), ("llama-2", 1.242), ("llama2", 1.242),
    ("phi-3", 1.242), ("mistral", 1.242), ("mixtral", 1.242),
)  # fmt: skip
_UNKNOWN_FAMILY = 1.25
_ENCODINGS: tuple[tuple[str, str], ...] = (
    ("gpt-oss", "o200k_harmony"), ("gpt-4o", "o200k_base"), ("gpt-4.1", "o200k_base"), ("gpt-4.5", "o200k_base"),
    ("gpt-5", "o200k_base"), ("chatgpt-4o", "o200k_base"), ("o1", "o200k_base"), ("o3", "o200k_base"),
    ("o4", "o200k_base"), ("gpt-4", "cl100k_base"), ("gpt-3.5", "cl100k_base"),
)  # fmt: skip
_BOUND_MARGIN = 1.05
_TABLES_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts the tokens of one model.

    ``exact`` says whether the model's own table is used. ``factor`` corrects the table's count for families
    with another tokenizer.

    Example:
        >>> TokenCounter.for_model("gpt-4o").text("Hello world")
        2
    """

    encoding: str
    factor: float = 1.0
    exact: bool = False

    @classmethod
    def for_model(cls, model: str) -> TokenCounter:
        """The counter of a model, by the last part of its name; an unknown family is counted a quarter dearer."""
        name = model.rsplit("/", 1)[-1].lower()
        for prefix, encoding in _ENCODINGS:
            if name.startswith(prefix):
                return cls(encoding, exact=_table(encoding) is not None)
        for family, factor in _FAMILIES:
            if family in name:
                return cls("cl100k_base", factor)
        return cls("cl100k_base", _UNKNOWN_FAMILY)

    def text(self, text: str) -> int:
        """Tokens of plain text; never raises, never touches the network."""
        return _rounded(_count(self.encoding, text) * self.factor)

    def prompt(self, request: Request) -> int:
        """Tokens of the whole prompt: messages with their chat framing, tools and output schema."""
        counted = sum(_count_message(self.encoding, message) for message in request.messages)
        for tool in request.tools:
            counted += _count(self.encoding, f"{tool.name} {tool.description} {_compact(tool.parameters)}")
        if request.schema is not None:
            counted += _count(self.encoding, _compact(request.schema.schema))
        return _rounded(counted * self.factor) + _REPLY_PRIMER

    def prompt_bound(self, request: Request) -> int:
        """A count to hold a budget by: at least the true one for the text this was measured on."""
        count = self.prompt(request)
        return count if self.exact else _rounded(count * _BOUND_MARGIN) + 8

    def usage(self, request: Request, reply: str) -> TokenUsage:
        """Counts for a reply whose server sent none."""
        return TokenUsage(self.prompt(request), self.text(reply), source="tokenizer" if self.exact else "estimate")


def _rounded(count: float) -> int:
    return int(-(-count // 1))


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


@functools.lru_cache(maxsize=4096)
def _count_message(encoding: str, message: Message) -> int:
    calls = sum(_count(encoding, f"{call.name} {call.arguments}") for call in message.tool_calls)
    return _PER_MESSAGE + 1 + calls + _count(encoding, message.content)


def _count(encoding: str, text: str) -> int:
    table = _table(encoding)
    if table is None:
        return _rounded(len(text) / _CHARACTERS_PER_TOKEN)
    return sum(len(table.encode_ordinary(part)) for part in _parts(text))


def _parts(text: str) -> list[str]:
    """Long text in pieces cut before a line's first character, where a cut changes no token."""
    parts: list[str] = []
    while len(text) > _CUT:
        cut = text.rfind("\n", 0, _CUT) + 1
        cut = cut if cut > 1 else _CUT
        parts.append(text[:cut])
        text = text[cut:]
    return [*parts, text]


@functools.lru_cache(maxsize=8)
def _table(encoding: str) -> tiktoken.Encoding | None:
    """Tiktoken's table, or None when its file is not on this machine."""
    with _TABLES_LOCK:
        folder = _tables_folder()
        if folder is None:
            return None
        had = os.environ.get("TIKTOKEN_CACHE_DIR")
        os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
        try:
            import tiktoken

            return tiktoken.get_encoding(encoding) if _has_table(folder, encoding) else None
        except Exception:
            # tiktoken fails in many ways on a broken or missing table; an estimate is better than none of them.
            return None
        finally:
            if had is None:
                os.environ.pop("TIKTOKEN_CACHE_DIR", None)
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = had


# tiktoken names a cached table by the SHA-1 of its address; without the file it would try the network.
_FILES = {
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
    "o200k_harmony": "fb374d419588a4632f3f557e76b4b70aebbca790",
}


def _has_table(folder: Path, encoding: str) -> bool:
    return (folder / _FILES.get(encoding, "?")).is_file()


def _tables_folder() -> Path | None:
    """The folder with tiktoken's tables: the user's own, or a copy of those that litellm's wheel carries."""
    own = os.environ.get("TIKTOKEN_CACHE_DIR")
    if own:
        return Path(own)
    import platformdirs

    target = Path(platformdirs.user_cache_dir("agentflow", appauthor=False), "tiktoken")
    if all((target / name).is_file() for name in _FILES.values()):
        return target
    spec = importlib.util.find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        return None
    carried = Path(spec.submodule_search_locations[0], "litellm_core_utils", "tokenizers")
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in set(_FILES.values()):
            _copy_whole(carried / name, target / name)
    except OSError:
        return None
    return target


def _copy_whole(source: Path, target: Path) -> None:
    # tiktoken deletes a file whose hash is wrong, so it gets a copy, and never a half-written one.
    if target.is_file() or not source.is_file():
        return
    handle, name = tempfile.mkstemp(dir=target.parent)
    os.close(handle)
    shutil.copyfile(source, name)
    Path(name).replace(target)
