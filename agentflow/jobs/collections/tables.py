"""The tables of collections, in the database of jobs. Imports SQLAlchemy. Times are milliseconds since 1970, UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text

metadata = MetaData()

collection = Table(
    "agentflow_collection",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
Index("agentflow_collection_listed", collection.c.tenant, collection.c.created_ms)

upload = Table(
    "agentflow_upload",
    metadata,
    # Also what its files are kept under: a file that is uploaded again is another upload.
    Column("id", Text, primary_key=True),
    Column("collection", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("characters", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
Index("agentflow_upload_name", upload.c.collection, upload.c.name, unique=True)

upload_index = Table(
    "agentflow_upload_index",
    metadata,
    Column("upload", Text, primary_key=True),
    # What it was made with: see reader.edition.
    Column("edition", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
)
