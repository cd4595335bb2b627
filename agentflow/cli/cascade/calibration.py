"""``agentflow cascade calibration``: show what was learned of each rung's confidence, and learn it anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from agentflow.cascade.calibration import LEAST, Calibration
from agentflow.cascade.outcomes import Labelled, OutcomeFile, labelled
from agentflow.config import load_settings


@click.command("calibration")
@click.option("--learn", is_flag=True, help="Learn from the outcomes first, and keep what was learned.")
@click.option("--outcomes", type=click.Path(path_type=Path), help="A file of outcomes instead of the configured one.")
@click.option("--json", "as_json", is_flag=True, help="Print the maps as they are kept.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml.")
def command(learn: bool, outcomes: Path | None, as_json: bool, config: Path | None) -> None:
    """Show, for each rung and task, how many scored replies were learned from, when, and the calibration error.

    The error is the mean distance between the stated chance of a good reply and the true one: of the bare confidence,
    and of the map, held against replies that it was not learned from.
    """
    stores = load_settings(config).stores
    calibration = Calibration.load(stores.calibration)
    labels = list(labelled(OutcomeFile(outcomes or stores.outcomes).read()))
    if learn:
        calibration = calibration.merged(Calibration.learn(labels))
        calibration.save(stores.calibration)
    if as_json:
        click.echo(calibration.to_json(), nl=False)
    else:
        _print(calibration, labels)


def _print(calibration: Calibration, labels: Iterable[Labelled]) -> None:
    from agentflow.cli.budget.tables import console, shown, table

    if calibration.maps:
        listed = table("rung", "task", "kind", "labels", "learned", "error before", "after", words=3)
        for of in calibration.maps:
            date = f"{of.learned:%Y-%m-%d %H:%M}"
            listed.add_row(
                shown(of.rung),
                shown(of.task),
                of.kind,
                f"{of.n:,}",
                date,
                f"{of.ece_before:.3f}",
                f"{of.ece_after:.3f}",
            )
        console().print(listed)
    known = {(of.rung, of.task) for of in calibration.maps}
    for (rung, task), count in sorted(Counter((label.rung, label.task) for label in labels).items()):
        if (rung, task) not in known:
            console().print(f"{shown(rung)} at '{shown(task)}': {_lacking(count)}", markup=False)
    if not calibration.maps:
        click.echo("Nothing is calibrated yet: confidences are taken as they are. Score replies with chain.feedback.")


def _lacking(count: int) -> str:
    if count < LEAST:
        return f"{count:,} of the {LEAST} labels that it needs."
    return f"{count:,} labels, not learned from yet; with --learn they are, when there are good and bad ones."
