"""Which rung next, or stop: pure decisions, no I/O.

``state`` is what a policy is shown and what it may answer; ``fixed``, ``latency`` and ``utility`` are the policies.
What ``utility`` expects is learned: ``examples`` (labelled questions), ``posterior`` (how good each reply is, given
all that was seen), ``plan`` (what a further step brings), ``learned`` (both, for a live call). ``drift`` and ``router``
watch themselves. May import ``reply``, ``outcomes`` and numpy.
"""
