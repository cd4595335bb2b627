"""Reading sources: files, folders and web pages in, stored text with a hash out.

``read`` is the door; ``files`` walks folders, ``extract`` gets text out of formats and ``decoding`` out of bytes,
``parsing`` runs what may hang in a process that can be ended, ``pages`` fetches, ``addresses`` decides what may be
visited, ``store`` writes and reads the run folder.
"""

from agentflow.research.sources.read import estimated_bytes, read_sources
from agentflow.research.sources.source import Reading, ReadLimits, Skipped, Source, kind_of

__all__ = ["ReadLimits", "Reading", "Skipped", "Source", "estimated_bytes", "kind_of", "read_sources"]
