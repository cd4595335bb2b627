"""Collections: files uploaded once, looked in by any job. ``shelf`` keeps them, ``routes`` is their API."""
