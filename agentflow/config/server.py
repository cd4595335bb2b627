"""``[server]``: where the HTTP API listens, and how much of a client it bears."""

from __future__ import annotations

from pydantic import Field

from agentflow.config.table import Table


class ServerSettings(Table):
    """The HTTP API."""

    host: str = "127.0.0.1"
    """Address to listen at; any other than this machine's own needs keys."""
    port: int = Field(default=8321, ge=0, le=65_535)
    """Port to listen at; 0 takes a free one."""
    max_body_kb: int = Field(default=1_024, gt=0, le=65_536)
    """Largest body of a request, uploads aside, in kilobytes."""
    max_image_mb: float = Field(default=10.0, ge=0, le=48)
    """Pictures of one request of OpenAI's clients together, in megabytes; they come on top of ``max_body_kb``."""
    max_upload_mb: float = Field(default=50.0, gt=0, le=4_096)
    """Largest file of a collection, in megabytes."""
    max_files: int = Field(default=200, gt=0, le=10_000)
    """Files of one collection, at most."""
    max_collections: int = Field(default=100, gt=0, le=10_000)
    """Collections of one tenant, at most."""
    max_header_kb: int = Field(default=32, ge=4, le=256)
    """Request line and headers together, in kilobytes."""
    header_timeout_s: float = Field(default=10.0, gt=0, le=600)
    """Seconds a client has to send its request line and headers."""
    body_timeout_s: float = Field(default=30.0, gt=0, le=3_600)
    """Seconds a client may pause while it sends a body, or takes a response."""
    max_connections: int = Field(default=4_096, gt=0)
    """Connections at once; more are told to come back."""
    shutdown_s: int = Field(default=20, ge=0, le=3_600)
    """Seconds that requests under way have to end when the server is asked to."""
    requests_per_minute: int = Field(default=600, gt=0)
    """Of one key, unless the key says otherwise."""
    keep_responses_days: float = Field(default=30.0, gt=0, le=36_500)
    """Days that responses of OpenAI's clients are kept, where the client does not delete them."""
    heartbeat_s: float = Field(default=15.0, gt=0, le=300)
    """Seconds between signs of life on a quiet event stream."""
    allow_private: bool = False
    """Let clients name private addresses as sources and webhooks: for a network of your own."""
    allow_paths: bool = False
    """Let clients name files and folders of this machine as sources."""
