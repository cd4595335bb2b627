"""The outline of a text: its headings, and the blocks that should stay whole. Imports nothing of agentflow.

Headings are Markdown's (``#`` and underlined) and reStructuredText's; blocks are fenced code and tables. One pass over
the text, by rules on single lines: no parser, so that any text in any state gives an outline, in linear time.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Each begins with the line end before it: a search for a fixed character is ten times faster than one for "^".
_MARK = re.compile(
    r"\n(?:"
    r"[ \t]{0,8}(?P<fence>```+|~~~+)(?P<info>[^\n]*)"
    r"|(?P<level>#{1,6})[ \t]+(?P<title>[^\n]*)"
    r"|(?P<line>(?P<sign>[=\-~^\"'*+#`.:_])(?P=sign){2,})[ \t]*(?=\n|\Z)"
    r"|(?P<table>[ \t]*(?:\|[^\n]*|\+[-=]{2}[^\n]*)(?:\n[ \t]*[|+][^\n]*)++)"
    r")"
)
_LONGEST_TITLE = 200


class Block(NamedTuple):
    """A region that should stay whole; ``end`` is excluded."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Outline:
    """Headings and blocks by offset, in order. ``above`` has, for each heading, the place of the one above it or -1."""

    headings: Sequence[int] = ()
    titles: Sequence[str] = ()
    above: Sequence[int] = ()
    blocks: Sequence[Block] = ()

    @classmethod
    def of(cls, text: str, *, markdown: bool = False) -> Outline:
        """Find the outline of a text.

        Args:
            text: the whole text.
            markdown: whether underlined titles have Markdown's two levels; otherwise levels come in the order in
                which their underlines first occur, as in reStructuredText.
        """
        scan = _Scan(text, markdown)
        first = _MARK.match("\n" + text[:_LONGEST_TITLE].split("\n", 1)[0])
        if first and (first["fence"] or first["level"]):
            scan.take(first, -1)
        for found in _MARK.finditer(text, scan.front_matter()):
            scan.take(found, 0)
        scan.close(len(text))
        return cls(scan.headings, scan.titles, scan.above, scan.blocks)

    def path_at(self, offset: int) -> str:
        """The path of headings that holds at an offset, joined by " > "; empty above the first heading."""
        place = bisect.bisect_right(self.headings, offset) - 1
        path: list[str] = []
        while place >= 0:
            path.append(self.titles[place])
            place = self.above[place]
        return " > ".join(reversed(path))

    def last_heading(self, after: int, until: int) -> int:
        """The start of the last heading in ``(after, until]``; 0 when there is none."""
        place = bisect.bisect_right(self.headings, until) - 1
        return self.headings[place] if place >= 0 and self.headings[place] > after else 0

    def block_at(self, offset: int) -> Block | None:
        """The block that a cut at this offset would divide."""
        place = bisect.bisect_left(self.blocks, (offset,)) - 1
        if place >= 0 and self.blocks[place].start < offset < self.blocks[place].end:
            return self.blocks[place]
        return None


class _Scan:
    """What is known of a text up to the last line taken."""

    def __init__(self, text: str, markdown: bool) -> None:
        self.headings: list[int] = []
        self.titles: list[str] = []
        self.above: list[int] = []
        self.blocks: list[Block] = []
        self._text = text
        self._markdown = markdown
        # Level and place of each heading that still holds, outermost first.
        self._open: list[tuple[int, int]] = []
        self._fence = ""
        self._opened = 0
        self._levels: dict[str, int] = {}

    def front_matter(self) -> int:
        """Where the text begins after YAML front matter: its last line is no underline."""
        if self._text.startswith("---\n"):
            return max(self._text.find("\n---\n", 3, 20_000) + 4, 0) if "\n---\n" in self._text[3:20_004] else 0
        return 0

    def take(self, found: re.Match[str], shift: int) -> None:
        """Take one line into account; ``shift`` turns offsets of the match into offsets of the text."""
        start = found.start() + 1 + shift
        if found["fence"]:
            self._take_fence(found, start, found.end() + shift)
        elif self._fence:
            return
        elif found["level"]:
            self._add(start, len(found["level"]), found["title"].strip().rstrip("#").strip())
        elif found["table"]:
            self.blocks.append(Block(start, found.end() + shift))
        else:
            self._take_underline(found["line"], start)

    def close(self, end: int) -> None:
        """A fence that nothing closes runs to the end."""
        if self._fence:
            self.blocks.append(Block(self._opened, end))

    def _take_fence(self, found: re.Match[str], start: int, end: int) -> None:
        fence = found["fence"]
        if not self._fence:
            # reStructuredText underlines titles with what opens a fence in Markdown.
            if (
                fence[0] == "~"
                and not self._markdown
                and not found["info"].strip()
                and self._take_underline(fence, start)
            ):
                return
            # Three back quotes and more on one line are code within a line.
            if "`" not in found["info"]:
                self._fence, self._opened = fence, start
        elif fence.startswith(self._fence) and not found["info"].strip():
            self.blocks.append(Block(self._opened, end))
            self._fence = ""

    def _take_underline(self, line: str, start: int) -> bool:
        """Whether the line before an underline is a title: a lone line, not longer unless in Markdown."""
        text = self._text
        earliest = max(0, start - 2 - _LONGEST_TITLE)
        before = text.rfind("\n", earliest, start - 1) + 1
        if before == 0 and earliest > 0:
            return False
        title = text[before : start - 1].rstrip()
        if not title or title[0] in " \t-*+|>#" or (len(line) < len(title) and not self._markdown):
            return False
        if self._markdown and line[0] not in "=-":
            return False
        overline = before - len(line) - 1
        overlined = overline >= 0 and text[overline : before - 1] == line
        if not overlined and not _blank_before(text, before):
            return False
        level = "=-".index(line[0]) + 1 if self._markdown else self._levels.setdefault(line[0], len(self._levels) + 1)
        self._add(overline if overlined else before, level, title)
        return True

    def _add(self, start: int, level: int, title: str) -> None:
        if not title:
            return
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self.above.append(self._open[-1][1] if self._open else -1)
        self._open.append((level, len(self.headings)))
        self.headings.append(start)
        self.titles.append(title[:_LONGEST_TITLE])


def _blank_before(text: str, start: int) -> bool:
    """Whether the line before this one is blank, or there is none."""
    return start == 0 or not text[max(0, text.rfind("\n", 0, start - 1)) : start].strip()
