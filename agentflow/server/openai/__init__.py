"""The dialect of OpenAI's clients: chat completions, responses, models; the cascade and the meter behind them.

``messages`` reads what they send, ``targets`` finds the rungs, ``asking`` opens the metered chain, ``chat`` and
``responses`` are the two ways to ask; ``bill`` writes what it cost.
"""
