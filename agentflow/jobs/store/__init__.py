"""Where jobs keep their files, each known by its content. ``base`` is the protocol; ``disk`` and ``s3`` keep them."""
