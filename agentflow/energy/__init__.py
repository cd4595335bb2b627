"""Joules of a call: an interval with its provenance. ``facts`` is what can be known, ``estimate`` what follows."""

from agentflow.energy.facts import CallFacts, Deployment, EnergyProfile, Speculation
from agentflow.energy.interval import Energy
from agentflow.energy.profiles import profile_for

__all__ = ["CallFacts", "Deployment", "Energy", "EnergyProfile", "Speculation", "profile_for"]
