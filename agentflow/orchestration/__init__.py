"""Sub-agents and the plans they work on: ``library`` reads them, ``plan`` orders tasks, ``orchestrator`` runs them."""
