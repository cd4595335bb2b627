"""The table [jobs]: where jobs are kept, how workers work. Imports table."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from agentflow.config.table import Address, Table, VariableName


class QueueSettings(Table):
    """Limits of one queue, over all workers together."""

    concurrency: int | None = Field(default=None, gt=0)
    """Jobs at work at a time; as many as workers have places when left out."""
    tenant_concurrency: int | None = Field(default=None, gt=0)
    """Jobs of one tenant at work at a time."""


class JobStoreSettings(Table):
    """Where jobs keep their files: reports, sources, artifacts."""

    kind: Literal["disk", "s3"] = "disk"
    """``s3``: any S3-compatible server; pip install 'agentflow[s3]'."""
    path: Path = Path(".agentflow/store")
    """``disk``: the folder."""
    bucket: str = ""
    """``s3``: the bucket, which must exist."""
    prefix: str = "agentflow/"
    """``s3``: what every key begins with."""
    endpoint_url: Address = None
    """``s3``: the server; Amazon's when left out. Keys and region come from the usual AWS_* variables."""

    @model_validator(mode="after")
    def _has_its_place(self) -> JobStoreSettings:
        if self.kind == "s3" and not self.bucket:
            raise ValueError("store 's3' needs bucket")
        return self


class JobSettings(Table):
    """Durable jobs."""

    kind: Literal["sqlite", "postgres"] = "sqlite"
    """``sqlite``: one machine, one worker process; ``postgres``: workers on any number of machines."""
    path: Path = Path(".agentflow/jobs.db")
    """``sqlite``: the file; the engine's own lies beside it."""
    url_env: VariableName = None
    """``postgres``: the NAME of the environment variable that holds the address, with its password."""
    slots: int = Field(default=8, gt=0, le=1_000)
    """Jobs that one worker has at work at a time, of each queue."""
    queues: dict[str, QueueSettings] = Field(default_factory=dict[str, QueueSettings])
    """Limits by the names of queues; a queue needs no table."""
    lease_s: float = Field(default=5.0, ge=1, le=600)
    """Seconds without a word after which a worker is taken for dead."""
    drain_s: float = Field(default=30.0, ge=0)
    """Seconds that running calls are given when a worker ends."""
    tries: int = Field(default=3, ge=1, le=100)
    """How often a failing job is tried before it is left for a person."""
    retry_s: float = Field(default=2.0, ge=0)
    """Seconds before the second try; each further wait is twice as long."""
    worker_deaths: int = Field(default=5, ge=0, le=1_000)
    """How many workers may die over a job before it is left for a person."""
    keep_days: float | None = Field(default=None, gt=0)
    """Days after which a job that has ended is deleted, with its files and its replies in the ledger; never when left
    out. What it cost stays in the ledger."""
    kinds: dict[str, str] = Field(default_factory=dict[str, str])
    """Kinds of jobs of your own, by name: ``package.module:function``."""
    store: JobStoreSettings = JobStoreSettings()
    """Where jobs keep their files."""

    @model_validator(mode="after")
    def _has_its_place(self) -> JobSettings:
        if self.kind == "postgres" and not self.url_env:
            raise ValueError("jobs 'postgres' needs url_env, the name of the variable with the address")
        return self
