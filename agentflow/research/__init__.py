"""The research job: a question and sources in, a report whose every claim points at a verbatim span out.

Rooms, in the order a job walks through them: ``sources`` (reading), ``corpus`` (chunks with offsets),
``planning`` (sub-questions), ``retrieval`` (evidence), ``synthesis`` (claims), ``citations``
(verification), ``finishing`` (what was asked for besides: ``judging``, ``translation``, ``shaping``), ``report`` (what
the reader gets). ``pipeline`` is the walk itself, ``output`` what may be asked of the result.
"""
