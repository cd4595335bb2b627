"""Reading sources: files, folders and web pages in, stored text with a hash out.

``read`` is the door; ``files`` walks folders, ``extract`` gets text out of formats, ``decoding`` out of bytes, and
``dating`` their day; ``parsing`` runs what may hang in a process that can be ended, ``pages`` fetches, ``addresses``
decides what may be visited and ``scope`` what this reading wants, ``store`` writes and reads the run folder.
"""

from agentflow.research.sources.read import estimated_bytes, keep_sources, read_sources
from agentflow.research.sources.scope import Scope
from agentflow.research.sources.source import Reading, ReadLimits, Skipped, Source, SourceDate, kind_of

__all__ = [
    "ReadLimits",
    "Reading",
    "Scope",
    "Skipped",
    "Source",
    "SourceDate",
    "estimated_bytes",
    "keep_sources",
    "kind_of",
    "read_sources",
]
