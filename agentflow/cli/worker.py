"""``agentflow worker``: work on durable jobs until told to end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from pathlib import Path
from typing import Final

import click

from agentflow.config import Settings, load_settings
from agentflow.jobs.hiring import open_worker
from agentflow.runtime import Runtime
from agentflow.server.openai.background import KIND, response_kind
from agentflow.telemetry import export

# So many more containers than went away before the garbage collector looks at them.
_NEW_OBJECTS: Final = 10_000


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


def _spare_the_collector() -> None:
    """Have the garbage collector look for cycles among what calls leave behind, and not so often.

    All that is loaded by now stays for good, and a call's objects nearly all go by themselves. Walking through the one
    again and again, and through the other every 700 objects, took a tenth of a worker's CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)


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
                _spare_the_collector()
                click.echo(f"Worker {worker.id} serves {', '.join(queues)}.", err=True)
                await worker.serve(enough)
        click.echo("Worker ended; its unfinished jobs are handed over.", err=True)
        if worker.deaf:
            # All that counts is written; what still runs would keep the process for as long as it likes.
            logging.shutdown()
            os._exit(0)
    finally:
        await runtime.aclose()
