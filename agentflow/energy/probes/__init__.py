"""Counters of joules, read on this machine. ``counter`` holds the protocol, ``ladder`` says which serves.

    counter   what a probe offers            window    from readings to energy, or a reason why not
    sampler   a thread that looks            ladder    which counters serve here, and their sum
    rapl      Intel and AMD processors       nvml      NVIDIA boards
    amd       AMD boards (untested)          apple     Apple silicon (untested)
    cpu_time  the prior that stands in       polled    watts, added up: instead of a counter or to check one

Example:
    >>> from agentflow.energy.probes import Sampler, survey, total
    >>> with Sampler(survey().counters) as sampler:
    ...     mark = sampler.mark()
    ...     work = sum(range(20_000_000))
    ...     windows = sampler.since(mark)
    >>> [window.reason for window in windows if window.facts.name == "cpu-time"] in ([], ["ok"])
    True
"""

from agentflow.energy.probes.counter import Absent, Counter, CounterFacts, Found, Reading
from agentflow.energy.probes.ladder import Survey, survey, total
from agentflow.energy.probes.sampler import Sampler
from agentflow.energy.probes.window import Window

__all__ = [
    "Absent",
    "Counter",
    "CounterFacts",
    "Found",
    "Reading",
    "Sampler",
    "Survey",
    "Window",
    "survey",
    "total",
]
