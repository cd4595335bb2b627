"""Limits, holds and the bill: ``budget`` (limits), ``meter`` (the tree), ``spend``, ``price(s)``, ``ledger``."""
