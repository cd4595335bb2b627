"""Which rung next, or stop: pure decisions, no I/O.

``state`` is what a policy is shown and what it may answer; ``fixed``, ``utility``, ``latency`` and ``pinned`` are the
four policies; ``estimates`` says what another rung would add. May import ``reply`` (for the verdict) and numpy.
"""
