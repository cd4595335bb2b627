"""The research job: a question and sources in, a report whose every claim points at a verbatim span out.

Rooms, in the order a job walks through them: ``sources`` (reading), ``corpus`` (chunks with offsets),
``planning`` (sub-questions), ``retrieval`` (evidence), ``synthesis`` (claims), ``citations``
(verification), ``report`` (what the reader gets). ``pipeline`` is the walk itself.
"""
