"""Webhooks: a signed message when a job ends or waits for a person, until its receiver has taken it.

``sending`` makes one attempt; ``outbox`` keeps what is to be sent, and goes on after a restart.
"""
