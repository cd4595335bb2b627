"""Where no device counts: busy CPU seconds times a prior's watts. Modelled, and labelled so. May import profiles.

The same prior as for models inside this process: ``CpuProfile`` holds its figures and their sources.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from agentflow.energy.estimate import CallFacts, EnergyProfile
from agentflow.energy.probes.counter import CounterFacts, Reading
from agentflow.energy.profiles import CpuProfile
from agentflow.errors import CounterLost
from agentflow.messages import Timings, TokenUsage

PROC_STAT = Path("/proc/stat")
# Fields of the first line of /proc/stat that are work: user, nice, system, irq, softirq (proc(5)). Guests are
# in user already; idle and iowait are not work, and what is stolen is done for another machine.
_WORK = (0, 1, 2, 5, 6)


class CpuTime:
    """Busy CPU seconds of the whole machine as if they were a counter of joules.

    Off Linux, where a machine's CPU seconds take a library to learn, it counts this process's own and says so.

    Args:
        profile: joules of a CPU second, as an interval.
        stat: Linux's ``/proc/stat``, or another file of its form.
        cores: processors of the machine, for what cannot be true.
    """

    def __init__(
        self, profile: EnergyProfile | None = None, *, stat: Path = PROC_STAT, cores: int | None = None
    ) -> None:
        second = (profile or CpuProfile()).estimate(CallFacts(TokenUsage(), Timings(total_s=1.0, cpu_s=1.0)))
        self._stat = stat if stat.is_file() else None
        self._joules = second.mean
        count = cores or os.cpu_count() or 1
        whose = "this process alone" if self._stat is None else "the whole machine"
        self._facts = CounterFacts(
            name="cpu-time",
            covers=f"busy CPU seconds of {whose}; idle power is not in it",
            scope=second.scope,
            provenance="modelled",
            low=second.low / second.mean,
            high=second.high / second.mean,
            why="; ".join(second.assumed),
            max_watts=second.mean * count * 1.1,
            # The kernel counts in ticks of a hundredth of a second, each processor for itself.
            resolution_s=0.05,
            grain_uj=0.01 * count * second.mean * 1e6,
            shortest_s=0.1,
        )

    @property
    def facts(self) -> CounterFacts:
        """What is known of it; the ends are the prior's."""
        return self._facts

    def read(self) -> Reading:
        """Mean joules of the CPU seconds so far.

        Raises:
            CounterLost: the file is gone, or of another form.
        """
        return Reading(round(self._cpu_seconds() * self._joules * 1e6), time.monotonic())

    def close(self) -> None:
        """Nothing is held."""

    def _cpu_seconds(self) -> float:
        if self._stat is None:
            return time.process_time()
        try:
            fields = self._stat.read_text("ascii").split("\n", 1)[0].split()[1:]
            return sum(int(fields[place]) for place in _WORK) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError) as error:
            raise CounterLost(f"{self._stat} is not as proc(5) describes it: {error}.") from error
