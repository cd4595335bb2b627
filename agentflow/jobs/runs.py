"""Runs: one folder a job, with its report in three forms, its sources, its events. Imports research."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from agentflow.errors import UsageError
from agentflow.research.rendering import to_html, to_markdown
from agentflow.research.report import Report
from agentflow.research.sources import Source
from agentflow.research.sources.store import load_text, store_sources


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one job."""

    path: Path

    @property
    def events(self) -> Path:
        """Where its events go."""
        return self.path / "events.jsonl"

    def create(self) -> None:
        """Make the folder.

        Raises:
            UsageError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=False)
        except OSError as error:
            raise UsageError(
                f"The run folder {self.path} cannot be made: {error.strerror}. Choose another place with --out."
            ) from error

    def save(self, report: Report, sources: tuple[Source, ...]) -> None:
        """Write sources and report. Each file appears whole or not at all."""
        store_sources(self.path, sources)
        texts = {source.id: source.text for source in sources}
        _write(self.path / "report.json", report.model_dump_json(indent=2) + "\n")
        _write(self.path / "report.md", to_markdown(report, texts))
        _write(self.path / "report.html", to_html(report, texts))

    def report(self) -> Report:
        """The saved report.

        Raises:
            UsageError: there is none, or it is not one of this version.
        """
        try:
            return Report.model_validate_json((self.path / "report.json").read_text("utf-8"))
        except OSError as error:
            raise UsageError(f"No report in {self.path}. Name a run folder, or a job's id.") from error
        except ValidationError as error:
            raise UsageError(f"{self.path / 'report.json'} is not a report of this version.") from error

    def texts(self, report: Report) -> Mapping[str, str]:
        """The stored texts that a report cites, checked against their hashes.

        Raises:
            SourceError: one is missing, or was changed.
        """
        return {source.id: load_text(self.path, source.id, source.sha256) for source in report.sources}


@dataclass(frozen=True, slots=True)
class RunStore:
    """All run folders of one place."""

    folder: Path

    def run(self, job: str) -> RunFolder:
        """The folder of a job."""
        return RunFolder(self.folder / job)

    def find(self, name: str) -> RunFolder:
        """The run of a job's id, of the path of its folder, or ``latest``.

        Raises:
            UsageError: there is none.
        """
        if name == "latest":
            runs = sorted(p for p in self.folder.glob("*/report.json"))
            if not runs:
                raise UsageError(f"No runs in {self.folder} yet. Start one with: agentflow research QUESTION PATH.")
            return RunFolder(runs[-1].parent)
        for path in (Path(name), self.folder / name):
            if (path / "report.json").is_file():
                return RunFolder(path)
        raise UsageError(f"No run '{name}' here or in {self.folder}. Name a run folder, a job's id, or 'latest'.")


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".partial")
    unfinished.write_text(text, encoding="utf-8", errors="surrogatepass", newline="\n")
    unfinished.replace(path)
