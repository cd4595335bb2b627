"""The HTTP API: jobs, and any OpenAI client, over the cascade and the meter.

``app`` puts it together, ``serving`` listens; ``keys`` and ``access`` say who may do what, ``problems`` what went
wrong. ``openai`` speaks that dialect, ``research`` the API of jobs, ``webhooks`` calls back. May import jobs and all
below; FastAPI, Starlette and uvicorn are imported in this folder alone.
"""
