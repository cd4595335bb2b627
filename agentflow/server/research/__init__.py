"""The API of research jobs: submit, read, control. Everything goes through ``jobs.service``.

``models`` is what crosses the wire, the client's too; ``submitting``, ``reading``, ``controlling`` are the routes.
"""
