"""``agentflow worker``: work on durable jobs until told to end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path

import click

from agentflow.config import Settings, load_settings
from agentflow.jobs.hiring import open_worker
from agentflow.runtime import Runtime
from agentflow.server.openai.background import KIND, response_kind
from agentflow.telemetry import export


@click.command("worker")
@click.option("--queue", "queues", multiple=True, default=("default",), show_default=True, help="A queue to serve.")
@click.option("--slots", type=click.IntRange(1, 1000), help="Jobs at a time of each queue.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml.")
def command(queues: tuple[str, ...], slots: int | None, config: Path | None) -> None:
    """Work on the jobs of the configured database.

    SIGTERM or Ctrl-C: no more jobs are taken, calls that run may end, unfinished jobs go to other workers. A second one
    ends the program at once; nothing is lost then either.
    """
    settings = load_settings(config)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    export.setup(capture_content=settings.telemetry.capture_content, compat=settings.telemetry.otel_compat)
    asyncio.run(_work(settings, tuple(dict.fromkeys(queues)), slots))


async def _work(settings: Settings, queues: tuple[str, ...], slots: int | None) -> None:
    runtime = Runtime(settings)
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        enough.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        async with response_kind(settings) as respond:
            worker = open_worker(settings, runtime, queues=queues, slots=slots, kinds={KIND: respond})
            async with worker:
                click.echo(f"Worker {worker.id} serves {', '.join(queues)}.", err=True)
                await worker.serve(enough)
        click.echo("Worker ended; its unfinished jobs are handed over.", err=True)
        if worker.deaf:
            # All that counts is written; what still runs would keep the process for as long as it likes.
            logging.shutdown()
            os._exit(0)
    finally:
        await runtime.aclose()
