"""Counting tokens without a network: tiktoken's tables where they are at hand, characters where they are not.

A count is exact for the models whose table it uses and a factor-corrected estimate for the others; a hold uses
``prompt_bound``, which errs upwards. tiktoken is imported on the first count. May import messages, image_tokens.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentflow.image_tokens import Rule, rule_for, unknown
from agentflow.messages import Message, Request, TokenUsage, UsageSource

if TYPE_CHECKING:
    import tiktoken

# OpenAI's published chat format, o200k and cl100k: 3 tokens frame every message, 1 is its role, 3 prime the reply.
_PER_MESSAGE = 4
_REPLY_PRIMER = 3
# How a server writes tools and schemas into the prompt is its own affair: a bound adds this much for each.
_PER_TOOL = 16
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
# A name is of a family when it is the family's, or goes on after it with a mark: ``o1-mini``, not ``o1x``.
_ENCODINGS: tuple[tuple[str, str], ...] = (
    ("gpt-oss", "o200k_harmony"), ("gpt-4o", "o200k_base"), ("gpt-4.1", "o200k_base"), ("gpt-4.5", "o200k_base"),
    ("gpt-5", "o200k_base"), ("chatgpt-4o", "o200k_base"), ("o1", "o200k_base"), ("o3", "o200k_base"),
    ("o4", "o200k_base"), ("gpt-4", "cl100k_base"), ("gpt-3.5", "cl100k_base"), ("gpt-35", "cl100k_base"),
    ("text-embedding-3", "cl100k_base"), ("text-embedding-ada-002", "cl100k_base"),
)  # fmt: skip
_FAMILY_ENDS = frozenset(("", "-", ".", ":", "_", "@"))
_BOUND_MARGIN = 1.05
_BOUND_MARGIN_WITHOUT_TABLE = 1.5
_BOUND_FRAME = 8
_DIGIT = re.compile(r"[0-9]")
_TABLES_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts the tokens of one model.

    ``exact`` says whether the model's own table is used. ``factor`` corrects the table's count for families
    with another tokenizer. ``images`` is the family's rule for pictures, which errs upwards.

    Example:
        >>> TokenCounter.for_model("gpt-4o").text("Hello world")
        2
    """

    encoding: str
    factor: float = 1.0
    exact: bool = False
    images: Rule = unknown

    @classmethod
    def for_model(cls, model: str) -> TokenCounter:
        """The counter of a model, by the last part of its name; an unknown family is counted a quarter dearer."""
        name = model.rsplit("/", 1)[-1].lower().removeprefix("ft:")
        images = rule_for(name)
        for prefix, encoding in _ENCODINGS:
            if name.startswith(prefix) and name[len(prefix) : len(prefix) + 1] in _FAMILY_ENDS:
                return cls(encoding, exact=_table(encoding) is not None, images=images)
        for family, factor in _FAMILIES:
            if family in name:
                return cls("cl100k_base", factor, images=images)
        return cls("cl100k_base", _UNKNOWN_FAMILY, images=images)

    def text(self, text: str) -> int:
        """Tokens of plain text; never raises, never touches the network."""
        return _rounded(_count(self.encoding, text) * self.factor)

    def prompt(self, request: Request) -> int:
        """Tokens of the whole prompt: messages with their chat framing, tools, output schema and images."""
        return self._prompt_text(request) + self._pictures(request)

    def _pictures(self, request: Request) -> int:
        return sum(map(self.images, request.images))

    def _prompt_text(self, request: Request) -> int:
        counted = sum(_count_message(self.encoding, message) for message in request.messages)
        counted += sum(_count(self.encoding, part) for part in _appended(request))
        return _rounded(counted * self.factor) + _REPLY_PRIMER

    def at_most(self, request: Request) -> int:
        """A figure that ``prompt`` never passes, found without counting: no token of a table is less than a byte."""
        texts = [*(text for message in request.messages for text in _texts(message)), *_appended(request)]
        tokens = sum(map(_bytes, texts)) + _PER_MESSAGE * len(request.messages)
        return _rounded(tokens * self.factor) + _REPLY_PRIMER + self._pictures(request)

    def prompt_bound(self, request: Request) -> int:
        """A count to hold a budget by.

        With the model's own table: the count, and a margin for how its server writes tools and schemas. Without:
        the count with a margin, every byte of what is not ASCII and every digit by itself, since that is where
        tokenizers differ most; but never more than one token a byte, which no tokenizer with byte fallback passes.
        It bounds prose, code, tables and other scripts; text made up against a tokenizer can pass it. Images are
        added by their family's rule.
        """
        return self._text_bound(request) + self._pictures(request)

    def _text_bound(self, request: Request) -> int:
        appended = _appended(request)
        count = self._prompt_text(request) + _PER_TOOL * len(appended)
        if self.exact:
            return count
        margin = _BOUND_MARGIN if _table(self.encoding) is not None else _BOUND_MARGIN_WITHOUT_TABLE
        texts = [*(text for message in request.messages for text in _texts(message)), *appended]
        frame = _BOUND_FRAME * (1 + len(request.messages) + len(appended))
        most = sum(map(_bytes, texts))
        return max(count, min(_rounded(count * margin) + sum(map(_surprises, texts)) + frame, most + 2 * frame))

    def usage(self, request: Request, reply: str) -> TokenUsage:
        """Counts for a reply whose server sent none; those of images are by a rule, and so an estimate."""
        counted = self.exact and not request.images
        source: UsageSource = "tokenizer" if counted else "estimate"
        return TokenUsage(self.prompt(request), self.text(reply), source=source, images=len(request.images))


def _rounded(count: float) -> int:
    return int(-(-count // 1))


def _appended(request: Request) -> list[str]:
    """What a server adds to the prompt: its tools and the schema of its output, as JSON."""
    parts = [f"{tool.name} {tool.description} {_compact(tool.parameters)}" for tool in request.tools]
    return parts if request.schema is None else [*parts, _compact(request.schema.schema)]


def _texts(message: Message) -> list[str]:
    return [message.content, *(f"{call.name} {call.arguments}" for call in message.tool_calls)]


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _surprises(text: str) -> int:
    """Tokens that another tokenizer may need beyond the table's: bytes that are not ASCII, digits one by one."""
    other = 0 if text.isascii() else len(text.encode("utf-8", "surrogatepass")) - sum(map(str.isascii, text))
    return other + len(_DIGIT.findall(text)) * 2 // 3


def _compact(value: object) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(value)


class _Counts:
    """The latest counts by a digest of what was counted: the texts themselves are not kept alive."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def get(self, key: bytes) -> int | None:
        with self._lock:
            count = self._counts.pop(key, None)
            if count is not None:
                self._counts[key] = count
            return count

    def put(self, key: bytes, count: int) -> None:
        with self._lock:
            self._counts[key] = count
            if len(self._counts) > self._most:
                del self._counts[next(iter(self._counts))]


_COUNTS = _Counts(4096)


def _count_message(encoding: str, message: Message) -> int:
    """Tokens of a message with its frame. Agents count their history again on every turn, hence the memory."""
    digest = hashlib.blake2b(encoding.encode(), digest_size=16)
    for text in _texts(message):
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    key = digest.digest()
    count = _COUNTS.get(key)
    if count is None:
        count = _PER_MESSAGE + sum(_count(encoding, text) for text in _texts(message))
        _COUNTS.put(key, count)
    return count


def _count(encoding: str, text: str) -> int:
    table = _table(encoding)
    if table is None:
        ascii_characters = len(text) if text.isascii() else sum(map(str.isascii, text))
        return _rounded(ascii_characters / _CHARACTERS_PER_TOKEN) + len(text) - ascii_characters
    return sum(len(table.encode_ordinary(part)) for part in _parts(text))


def _parts(text: str) -> Iterator[str]:
    """Long text in pieces, cut where a cut changes no token: before a line that starts with a mark or a letter.

    Where there is no such line, before a space, and where there is none of those either, anywhere.
    """
    start = 0
    while len(text) - start > _CUT:
        end = start + _CUT
        cut = _line_start(text, start, end) or text.rfind(" ", start + 1, end)
        cut = cut if cut > start else end
        yield text[start:cut]
        start = cut
    yield text[start:]


def _line_start(text: str, start: int, end: int) -> int:
    """Index of the last line in ``start``..``end`` that does not start with white space; 0 when there is none."""
    at = text.rfind("\n", start, end - 1)
    while at > start and text[at + 1].isspace():
        at = text.rfind("\n", start, at)
    return at + 1 if at > start else 0


# tiktoken names a cached table by the SHA-1 of its address. A table that is missing or that is not what it should
# be makes tiktoken delete it and go to the network, so it is only called for one that is whole.
_FILES = {
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
}
_FILES["o200k_harmony"] = _FILES["o200k_base"]


@functools.lru_cache(maxsize=8)
def _table(encoding: str) -> tiktoken.Encoding | None:
    """Tiktoken's table, or None when its file is not on this machine."""
    with _TABLES_LOCK:
        folder = _folder_with(encoding)
        if folder is None:
            return None
        # tiktoken reads the folder's name from the environment alone; it is put back at once.
        had = os.environ.get("TIKTOKEN_CACHE_DIR")
        os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
        try:
            import tiktoken

            return tiktoken.get_encoding(encoding)
        except Exception:
            # tiktoken fails in many ways on a broken table; an estimate is better than any of them.
            return None
        finally:
            if had is None:
                os.environ.pop("TIKTOKEN_CACHE_DIR", None)
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = had


def _folder_with(encoding: str) -> Path | None:
    """The folder with a whole table: the user's own, else our copy of those that litellm's wheel carries."""
    if encoding not in _FILES:
        return None
    name, sha256 = _FILES[encoding]
    own = os.environ.get("TIKTOKEN_CACHE_DIR")
    if own and _is_whole(Path(own, name), sha256):
        return Path(own)
    import platformdirs

    copies = Path(platformdirs.user_cache_dir("agentflow", appauthor=False), "tiktoken")
    if _is_whole(copies / name, sha256):
        return copies
    carried = _carried_tables()
    if carried is None or not _is_whole(carried / name, sha256):
        return None
    try:
        _copy_whole(carried / name, copies / name)
    except OSError:
        return None
    return copies


def _carried_tables() -> Path | None:
    """The folder of litellm's wheel that holds tables, found without importing litellm."""
    try:
        spec = importlib.util.find_spec("litellm")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], "litellm_core_utils", "tokenizers")


def _is_whole(file: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() == sha256
    except OSError:
        return False


def _copy_whole(source: Path, target: Path) -> None:
    """Copy so that other processes see the whole file or none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent)
    os.close(handle)
    try:
        shutil.copyfile(source, name)
        Path(name).replace(target)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
