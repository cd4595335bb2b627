"""What peers spend of a shared budget for ten calls when N callers ask at once: ``python -m benchmarks.overspend``

Every call costs the same and is answered after the same delay by a scripted server in a process of its own, which also
counts: what it answered is what would have been billed, whether or not the peer handed the answer on. Each race runs
in a fresh process of the peer's interpreter (``--python``; litellm's is this one), because the peers ask for different
major versions of one client library. A peer that is not installed is named as such and has no figure.

Every limit that a peer lets concurrent calls share is raced, the largest crowd on its first limit alone: litellm's
Router with ``provider_budget_config``, which counts a spend shortly after the answer is handed on; pydantic-ai's
``UsageLimits`` on one shared ``RunUsage``; inspect_ai's scoped limits around all calls, with as many connections as
callers, and once with its own cap on connections. Its ``message_limit`` is left out: it bounds each conversation and
shares nothing. A race of one caller shows what a limit does when nothing competes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.asking import BUDGET_CALLS, CALL_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS
from benchmarks.table import Figure, show
from tests.servers.openai_server import ScriptedServer, ServerProcess

ROOT = Path(__file__).parents[1]
PEERS_PYTHON = ROOT / ".venv" / "peers" / "bin" / "python"
DELAY_S = 0.05
RACE_TIMEOUT_S = 300.0
NOT_INSTALLED = "not installed"
# So many callers are raced on a peer's first limit alone: such a race takes ten seconds.
CROWD = 1000


class PeerNotInstalled(Exception):
    """The peer's distribution is not in the interpreter that was named for it."""


class RaceFailed(Exception):
    """The peer's process ended without a result; what it wrote is in the message."""


@dataclass(frozen=True, slots=True)
class Race:
    """How one race ended: calls that the server answered, and would have billed, of those there was a budget for."""

    peer: str
    version: str
    limit: str
    at_once: int
    admitted: int
    answered: int
    budget_calls: int = BUDGET_CALLS

    @property
    def spent_ratio(self) -> float:
        """Spend over budget; calls cost the same, so that it is the ratio of their numbers."""
        return self.admitted / self.budget_calls


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer: its module in ``benchmarks.peers``, its distribution, the limits it can share, numbers of callers."""

    name: str
    distribution: str
    limits: Sequence[str]
    at_once: Sequence[int]


LITELLM = Peer("litellm", "litellm", ("provider_budget_config",), (1, 10, 100, CROWD))
PYDANTIC_AI = Peer(
    "pydantic_ai", "pydantic-ai-slim", ("request_limit", "total_tokens_limit", "cost_limit"), (1, 50, CROWD)
)
INSPECT_AI = Peer(
    "inspect_ai",
    "inspect-ai",
    ("token_limit", "cost_limit", "turn_limit", "token_limit_default_connections"),
    (1, 50, CROWD),
)
PEERS = (LITELLM, PYDANTIC_AI, INSPECT_AI)


async def litellm_router(at_once: int, limit: str = "provider_budget_config") -> Race:
    """litellm's Router with a budget for its provider, in this interpreter."""
    return await race(LITELLM, limit, at_once, python=Path(sys.executable))


async def pydantic_ai(at_once: int, limit: str = "request_limit", *, python: Path = PEERS_PYTHON) -> Race:
    """pydantic-ai's ``UsageLimits`` with one ``RunUsage`` for all runs."""
    return await race(PYDANTIC_AI, limit, at_once, python=python)


async def inspect_ai(at_once: int, limit: str = "token_limit", *, python: Path = PEERS_PYTHON) -> Race:
    """inspect_ai's scoped limits, open around all calls."""
    return await race(INSPECT_AI, limit, at_once, python=python)


async def race(peer: Peer, limit: str, at_once: int, *, python: Path) -> Race:
    """Race one limit of a peer against a server of its own.

    Raises:
        PeerNotInstalled: ``python`` is not there or has no such distribution.
        RaceFailed: the peer's process failed, on anything but its own refusal.
    """
    version = await installed_version(peer.distribution, python)
    process = await asyncio.to_thread(ServerProcess, "tests.servers.openai_server")
    try:
        server = ScriptedServer(process)
        usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": CALL_TOKENS}
        await asyncio.to_thread(server.script, {"*": [{"text": "This.", "usage": usage, "delay": DELAY_S}]})
        output = await output_of(python, "-m", f"benchmarks.peers.{peer.name}", server.url, limit, str(at_once))
        admitted = len(await asyncio.to_thread(server.requests))
    finally:
        process.stop()
    return Race(peer.name, version, limit, at_once, admitted, json.loads(output)["answered"])


async def installed_version(distribution: str, python: Path) -> str:
    """The version of a distribution that ``python`` has.

    Raises:
        PeerNotInstalled: it has none.
    """
    asked = f"from importlib.metadata import version; print(version({distribution!r}))"
    try:
        return (await output_of(python, "-c", asked)).strip()
    except (OSError, RaceFailed) as error:
        raise PeerNotInstalled(f"{distribution} is not installed for {python}") from error


async def output_of(python: Path, *arguments: str) -> str:
    """What an interpreter prints when it is run with these arguments, from the project's folder.

    Raises:
        RaceFailed: it ended with an error, or not at all.
    """
    # The server is on loopback; a proxy of this machine must not be asked for it.
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        python, *arguments, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(RACE_TIMEOUT_S):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise RaceFailed(f"{' '.join(arguments)} took more than {RACE_TIMEOUT_S} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RaceFailed(f"{' '.join(arguments)} ended with {process.returncode}: {errors.decode()[-2000:]}")
    return output.decode()


def main() -> int:
    """Race every peer that is installed, and print what it spent; the exit code is 1 when a race failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peer", choices=[peer.name for peer in PEERS], action="append", help="race only this one")
    parser.add_argument("--python", type=Path, default=PEERS_PYTHON, help="interpreter that has the peers but litellm")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    peers = [peer for peer in PEERS if not asked.peer or peer.name in asked.peer]
    races, absent = asyncio.run(all_peers(asked.python.absolute(), peers))
    failed = int(any(why != NOT_INSTALLED for why in absent.values()))
    if asked.json:
        print(json.dumps(as_json(races) | absent, indent=2))
        return failed
    figures = [
        Figure(
            f"{r.peer} {r.version}  {r.limit}  {r.at_once} at once",
            f"{r.spent_ratio:.1f} x",
            f"{r.admitted} calls billed, {r.answered} answered to the caller",
        )
        for r in races
    ]
    notes = [f"{what}: {why}" for what, why in absent.items()]
    if {PYDANTIC_AI.name, INSPECT_AI.name} & absent.keys():
        notes.append("make peers installs pydantic-ai and inspect_ai")
    return show(f"Spent of a budget for {BUDGET_CALLS} calls", figures, notes) or failed


async def all_peers(python: Path, peers: Sequence[Peer] = PEERS) -> tuple[list[Race], dict[str, str]]:
    """Every race of every peer, and which of them could not be run, and why."""
    races: list[Race] = []
    absent: dict[str, str] = {}
    for peer in peers:
        interpreter = Path(sys.executable) if peer is LITELLM else python
        crowds = [(limit, n) for limit in peer.limits for n in peer.at_once if n < CROWD or limit == peer.limits[0]]
        for limit, at_once in crowds:
            try:
                races.append(await race(peer, limit, at_once, python=interpreter))
            except PeerNotInstalled:
                absent[peer.name] = NOT_INSTALLED
            except RaceFailed as error:
                absent[f"{peer.name} {limit} {at_once} at once"] = f"failed: {error}"
    return races, absent


def as_json(races: Sequence[Race]) -> dict[str, object]:
    """Spent ratios by peer, limit and callers, and litellm's once more under flat keys."""
    peers: dict[str, dict[str, object]] = {}
    flat: dict[str, object] = {}
    for r in races:
        limits = peers.setdefault(r.peer, {"version": r.version})
        ratios = limits.setdefault(r.limit, {})
        assert isinstance(ratios, dict)
        ratios[str(r.at_once)] = r.spent_ratio
        if r.peer == LITELLM.name:
            flat[f"litellm_overspend_ratio_{r.at_once}"] = r.spent_ratio
    return flat | peers


if __name__ == "__main__":
    sys.exit(main())
