"""Rungs, cheapest first, and what decides between them: ``cascade``, ``rung``, ``policy``, ``checks``, ``reply``."""
