"""Runs recorded to a file, and replayed without a network: around a backend, or instead of it. Imports exchange.

A cassette is JSON Lines: a line that says its version, then one exchange a line, as ``exchange`` writes them. It holds
no headers, addresses or keys. A line is written whole or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, cast

from agentflow.backends.base import Backend, Probe
from agentflow.backends.exchange import Exchange, from_line, json_line, question, readable, struck, to_line
from agentflow.backends.nearest import differences, last_words, nearest
from agentflow.errors import BackendError, BackendTimeout, CassetteMiss, CassetteUnwritable, ConfigError
from agentflow.messages import Completion, Delta, Request

Mode = Literal["record", "replay", "auto"]
VERSION: Final = 1
_HEADER: Final = "agentflow_cassette"
# A wait that is cut off when this part of its time is over ended because the time did.
_OVER: Final = 0.95


class Cassette:
    """A file of recorded exchanges; those it holds when it is opened can each be replayed once.

    Args:
        path: the file. It and its folder are made with the first exchange that is added.

    Raises:
        ConfigError: the file cannot be read, or is not a cassette.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exchanges = _read(path)
        self._waiting: defaultdict[tuple[str, str, str], list[Exchange]] = defaultdict(list)
        for exchange in sorted(self.exchanges, key=lambda exchange: exchange.turn):
            self._waiting[exchange.rung, exchange.model, exchange.digest].append(exchange)
        self._turns = Counter({key: len(found) for key, found in self._waiting.items()})
        self._lock = threading.Lock()

    def take(self, rung: str, model: str, request: Request) -> Exchange | None:
        """The next recorded exchange of this request, which is not given again; None when there is none.

        Equal requests get their exchanges in the order in which they were asked. One whose reply was bounded otherwise
        serves as well, if its reply keeps to the new bound.
        """
        bound = request.max_output_tokens
        with self._lock:
            waiting = self._waiting.get((rung, model, question(request)), [])
            fitting = [exchange for exchange in waiting if exchange.within(bound)]
            if not fitting:
                return None
            same = [exchange for exchange in fitting if exchange.request.get("max_output_tokens") == bound]
            taken = (same or fitting)[0]
            waiting.remove(taken)
            return taken

    def turn(self, rung: str, model: str, request: Request) -> int:
        """Which of the equal requests one is that is asked now."""
        key = (rung, model, question(request))
        with self._lock:
            self._turns[key] += 1
            return self._turns[key]

    def add(self, exchange: Exchange) -> None:
        """Write an exchange.

        Raises:
            CassetteUnwritable: it cannot be written; the file is as it was.
        """
        with self._lock:
            try:
                _append(self.path, to_line(exchange))
            except OSError as error:
                raise CassetteUnwritable(
                    f"Cassette {self.path} cannot be written: {error.strerror}. Check its path and the disk."
                ) from error

    def miss(self, rung: str, model: str, request: Request) -> CassetteMiss:
        """The error that says that a request is not on the cassette, and what it is nearest to."""
        asked = readable(request)
        told = f"Cassette {self.path} has no reply of '{rung or model}' to the request {last_words(asked)}"
        advice = 'Record it in mode "auto" or to a new path, or make the request the same in every run.'
        like = nearest(rung, asked, self.exchanges)
        if like is None:
            return CassetteMiss(f"{told}: it is empty. {advice}")
        same = [e for e in self.exchanges if (e.rung, e.model, e.digest) == (rung, model, question(request))]
        if same and not self._waiting.get((rung, model, question(request))):
            times = "once" if len(same) == 1 else f"{len(same)} times"
            told += f" left: it was recorded {times}, and has been given as often"
            return CassetteMiss(f"{told}. {advice}")
        who = "" if like.rung == rung and like.model == model else f"of '{like.rung or like.model}' "
        what = "; ".join(differences(like.request, asked)) or "nothing but who was asked"
        return CassetteMiss(struck(f"{told}. Nearest {who}is line {like.line}; what differs: {what}. {advice}"))


class RecordingBackend:
    """A backend whose exchanges are written to a cassette as they end.

    A call that is cancelled is not written: nothing came of it. One that ran out of time is.

    Args:
        inner: what is asked.
        cassette: where to.
        rung: the name by which the exchanges are told from those of other models.
    """

    def __init__(self, inner: Backend, cassette: Cassette, *, rung: str = "") -> None:
        self.provider = inner.provider
        self.in_process = inner.in_process
        self._inner = inner
        self._cassette = cassette
        self._rung = rung

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Ask, and write down what came of it.

        Raises:
            BackendError: as the backend does; it is written too.
            CassetteUnwritable: the cassette cannot be written.
        """
        turn = self._cassette.turn(self._rung, model, request)
        deltas: list[str] = []

        def listen(delta: Delta) -> None:
            deltas.append(delta.text)
            if tell is not None:
                tell(delta)

        def write(outcome: Completion | BackendError) -> None:
            self._cassette.add(
                Exchange(
                    self._rung, self.provider, model, question(request), turn, readable(request), outcome, tuple(deltas)
                )
            )

        started = time.monotonic()
        try:
            completion = await self._inner.complete(model, request, listen)
        except BackendError as error:
            write(error)
            raise
        except asyncio.CancelledError:
            # Whoever asked may have a clock of its own, that ends the wait a moment before the backend's does.
            if request.timeout_s is not None and time.monotonic() - started >= request.timeout_s * _OVER:
                write(BackendTimeout(f"'{model}' gave no whole reply within {request.timeout_s:.3g} s."))
            raise
        write(completion)
        return completion

    async def probe(self) -> Probe:
        """Whether the model can be reached."""
        return await self._inner.probe()

    async def aclose(self) -> None:
        """Close the backend; the cassette needs none."""
        await self._inner.aclose()


class ReplayBackend:
    """What was recorded, in place of a backend: the same replies, errors, counts and timings, at once.

    Args:
        cassette: where from.
        rung: the name under which it was recorded.
        in_process: whether the model ran in the process that recorded it.
        otherwise: asked what is not on the cassette; without one that is an error.
    """

    def __init__(
        self, cassette: Cassette, *, rung: str = "", in_process: bool = False, otherwise: Backend | None = None
    ) -> None:
        recorded = (exchange.provider for exchange in cassette.exchanges if exchange.rung == rung)
        self.provider = otherwise.provider if otherwise is not None else next(recorded, "replay")
        self.in_process = in_process
        self._cassette = cassette
        self._rung = rung
        self._otherwise = otherwise

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Give what was recorded.

        Raises:
            BackendError: it was recorded.
            CassetteMiss: the request is not on the cassette, or not as often.
        """
        exchange = self._cassette.take(self._rung, model, request)
        if exchange is None:
            if self._otherwise is not None:
                return await self._otherwise.complete(model, request, tell)
            raise self._cassette.miss(self._rung, model, request)
        await asyncio.sleep(0)
        outcome = exchange.outcome
        if tell is not None:
            whole = () if isinstance(outcome, BackendError) or not outcome.text else (outcome.text,)
            for text in exchange.deltas or whole:
                tell(Delta(text))
        if isinstance(outcome, BackendError):
            raise outcome
        return outcome

    async def probe(self) -> Probe:
        """What the cassette holds; nobody is contacted, unless there is a backend for what it lacks."""
        if self._otherwise is not None:
            return await self._otherwise.probe()
        models = tuple(sorted({e.model for e in self._cassette.exchanges if e.rung == self._rung}))
        count = sum(e.rung == self._rung for e in self._cassette.exchanges)
        return Probe(True, f"{count} recorded replies on {self._cassette.path.name}", models=models)

    async def aclose(self) -> None:
        """Close the backend for what the cassette lacks, if there is one."""
        if self._otherwise is not None:
            await self._otherwise.aclose()


def open_cassette(path: Path, mode: Mode) -> Cassette:
    """The cassette of a run.

    Args:
        path: the file.
        mode: ``record`` begins a new one, ``replay`` needs one, ``auto`` takes either.

    Raises:
        ConfigError: there is one already, or none, or it cannot be read.
    """
    if mode == "replay" and not path.is_file():
        raise ConfigError(f'No cassette at {path}. Record one first, with mode "record" or "auto".')
    if mode == "record" and path.exists():
        raise ConfigError(f'Cassette {path} exists. Delete it to record anew, or add to it with mode "auto".')
    return Cassette(path)


def on_cassette(
    cassette: Cassette, mode: Mode, rung: str, make: Callable[[], Backend], *, in_process: bool = False
) -> Backend:
    """The backend of a rung whose run is recorded or replayed.

    Args:
        cassette: what ``open_cassette`` gave.
        mode: in ``replay`` the real backend is not even made.
        rung: its name in the configuration.
        make: makes the real backend.
        in_process: whether the model runs in this process.
    """
    if mode == "replay":
        return ReplayBackend(cassette, rung=rung, in_process=in_process)
    recording = RecordingBackend(make(), cassette, rung=rung)
    if mode == "record":
        return recording
    return ReplayBackend(cassette, rung=rung, in_process=recording.in_process, otherwise=recording)


def _read(path: Path) -> tuple[Exchange, ...]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigError(f"Cassette {path} cannot be read: {error.strerror}. Check its path.") from error
    exchanges: list[Exchange] = []
    headed = False
    # What follows the last end of a line was not written to its end: its process died meanwhile.
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            found: Any = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError("it is not an object")
            entry = cast("dict[str, Any]", found)
            if _HEADER not in entry:
                exchanges.append(from_line(entry, number))
                continue
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"Cassette {path}, line {number}: {error}. Record it anew.") from error
        headed = True
        if entry[_HEADER] != VERSION:
            raise ConfigError(
                f"Cassette {path} is of version {entry[_HEADER]}, this agentflow reads {VERSION}. Record it anew."
            )
    if data and not headed:
        raise ConfigError(f"{path} is not a cassette: no line says its version. Name another path.")
    return tuple(exchanges)


def _append(path: Path, line: bytes) -> None:
    """Add a line, whole or not at all; processes may do so side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        _write(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), json_line({_HEADER: VERSION}))
    _write(os.open(path, os.O_RDWR | os.O_APPEND), line)


def _write(file: int, line: bytes) -> None:
    try:
        size = _drop_torn(file)
        written = os.write(file, line)
        if written < len(line):
            os.ftruncate(file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(file)


def _drop_torn(file: int) -> int:
    """Cut off a line that a dead process left without its end. Returns the size that is left."""
    size = os.fstat(file).st_size
    kept = size
    while kept and (os.lseek(file, kept - 1, os.SEEK_SET), os.read(file, 1)) != (kept - 1, b"\n"):
        kept -= 1
    if kept < size:
        os.ftruncate(file, kept)
    return kept
