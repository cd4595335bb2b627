"""The whole configuration: every table, and where values come from. Imports the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agentflow.config.cascades import CODE, CascadeSettings
from agentflow.config.cassette import CassetteSettings
from agentflow.config.distillation import DistillationSettings
from agentflow.config.efforts import EffortName, EffortSettings
from agentflow.config.jobs import JobSettings
from agentflow.config.limits import BudgetSettings, LedgerSettings, TenantSettings
from agentflow.config.models import ModelSettings
from agentflow.config.placement import PlacementSettings
from agentflow.config.research import ResearchSettings, SourceSettings
from agentflow.config.reuse import ReuseSettings
from agentflow.config.server import ServerSettings
from agentflow.config.table import Table

PREFIX: Final = "AGENTFLOW_"


class StoreSettings(Table):
    """Where things are kept."""

    runs: Path = Path(".agentflow/runs")
    """Run folders of jobs."""
    outcomes: Path = Path(".agentflow/outcomes.jsonl")
    """How good replies turned out to be: what ``chain.feedback`` writes."""
    calibration: Path = Path(".agentflow/calibration.json")
    """What was learned from outcomes: what ``agentflow cascade calibration`` writes."""


class TelemetrySettings(Table):
    """Spans and metrics. Where they go is OpenTelemetry's own OTEL_EXPORTER_OTLP_ENDPOINT."""

    capture_content: bool = False
    """Record prompts and replies on spans too."""
    otel_compat: tuple[Literal["openinference", "mlflow"], ...] = ()
    """Other viewers whose names spans carry too: kinds of spans for Phoenix, dollars for MLflow."""


class Settings(BaseSettings):
    """All of it. Every table may be left out."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    models: dict[str, ModelSettings] = Field(default_factory=dict[str, ModelSettings])
    """Models by the names that cascades use."""
    cascades: dict[str, CascadeSettings] = Field(default_factory=dict[str, CascadeSettings])
    """Cascades by name: ``default``, and one for any agent that needs its own."""
    budget: BudgetSettings = BudgetSettings()
    """Limits of every job."""
    efforts: dict[EffortName, EffortSettings] = Field(default_factory=dict[EffortName, EffortSettings])
    """What is other than shipped for an effort: lite, base, core, pro, ultra."""
    tenants: dict[str, TenantSettings] = Field(default_factory=dict[str, TenantSettings])
    """Tenants by name: whose budgets last longer than a job."""
    cassette: CassetteSettings | None = None
    """Runs recorded and replayed."""
    ledger: LedgerSettings = LedgerSettings()
    """Where attempts and accounts are recorded."""
    jobs: JobSettings = JobSettings()
    """Durable jobs."""
    stores: StoreSettings = StoreSettings()
    """Where things are kept."""
    placement: PlacementSettings = PlacementSettings()
    """Where and when calls are served."""
    reuse: ReuseSettings = ReuseSettings()
    """Replies that are given again."""
    distillation: DistillationSettings = DistillationSettings()
    """What a small model can learn from."""
    research: ResearchSettings = ResearchSettings()
    """The research job."""
    sources: SourceSettings = SourceSettings()
    """Bounds on what is read."""
    server: ServerSettings = ServerSettings()
    """The HTTP API."""
    telemetry: TelemetrySettings = TelemetrySettings()
    """Spans and metrics."""

    @model_validator(mode="after")
    def _rungs_exist(self) -> Settings:
        if CODE in self.models:
            raise ValueError(
                f"models.{CODE}: '{CODE}' is the step's own code in every cascade; name the model otherwise"
            )
        for name, cascade in self.cascades.items():
            for rung in cascade.rungs:
                if rung != CODE and rung not in self.models:
                    known = ", ".join([CODE, *self.models])
                    raise ValueError(f"cascades.{name}.rungs: '{rung}' is not a model; there are: {known}")
            if cascade.judge is not None and cascade.judge not in self.models:
                known = ", ".join(self.models)
                raise ValueError(f"cascades.{name}.judge: '{cascade.judge}' is not a model; there are: {known}")
        for name, effort in self.efforts.items():
            if effort.cascade not in (None, "default", *self.cascades):
                known = ", ".join(["default", *self.cascades])
                raise ValueError(f"efforts.{name}.cascade: '{effort.cascade}' is not a cascade; there are: {known}")
        for name, model in self.models.items():
            if model.hedge_with is not None and (model.hedge_with not in self.models or model.hedge_with == name):
                others = ", ".join(other for other in self.models if other != name) or "none"
                raise ValueError(f"models.{name}.hedge_with: '{model.hedge_with}' is not another model: {others}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, whose content arrives as init arguments."""
        return env_settings, init_settings

    def cascade(self, name: str) -> CascadeSettings:
        """The cascade of this name, else ``default``, else code and then every model in the order of the file."""
        chosen = self.cascades.get(name) or self.cascades.get("default")
        return chosen or CascadeSettings(rungs=(CODE, *self.models))
