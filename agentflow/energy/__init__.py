"""Joules of a call: an interval with its provenance. ``estimate`` holds the protocol, ``profiles`` the models."""

from agentflow.energy.estimate import CallFacts, EnergyProfile
from agentflow.energy.interval import Energy
from agentflow.energy.profiles import profile_for

__all__ = ["CallFacts", "Energy", "EnergyProfile", "profile_for"]
