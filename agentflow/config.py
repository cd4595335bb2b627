"""Configuration: agentflow.toml and AGENTFLOW_* variables, checked by pydantic. Imports errors and the other ``config_*``.

The file is looked for in the working folder; AGENTFLOW_CONFIG names another. A variable wins over the file:
``AGENTFLOW_BUDGET__USD=0.5``, ``AGENTFLOW_MODELS__SMALL__BASE_URL=...``. Keys of providers are never in the file, only
the names of the variables that hold them.
"""

from __future__ import annotations

import datetime
import os
import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from agentflow.config_faults import explain, line_of
from agentflow.config_jobs import JobSettings
from agentflow.config_tables import Address, Table, VariableName
from agentflow.errors import ConfigError

CONFIG_FILE = "agentflow.toml"
CODE = "code"
_PREFIX = "AGENTFLOW_"
_Money = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
# Dollars for a million tokens or for one of another unit.
_Rate = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class RateSettings(Table):
    """One price list, in dollars. What is left out is never free."""

    input: _Rate
    """A million prompt tokens."""
    output: _Rate
    """A million reply tokens."""
    cache_read: _Rate | None = None
    """A million prompt tokens read from the provider's cache; the full input price when left out."""
    cache_write: _Rate | None = None
    """A million prompt tokens written to the provider's cache; the full input price when left out."""
    reasoning: _Rate | None = None
    """A million reply tokens spent on thinking; the output price when left out."""
    image: _Rate | None = None
    """One image; calls with images are refused when left out."""
    audio_second: _Rate | None = None
    """One second of audio; calls with audio are refused when left out."""
    request: _Rate | None = None
    """A fee for the call itself; none when left out."""


class TierSettings(RateSettings):
    """The price list of longer prompts: it covers the whole call, prompt and reply."""

    above: int = Field(gt=0)
    """Prompts of more tokens than these."""


class PriceSettings(RateSettings):
    """What a model costs, in dollars. A price of nothing but zeros is free in every unit: a server of your own."""

    tiers: tuple[TierSettings, ...] = ()
    """Price lists of longer prompts."""
    batch: RateSettings | None = None
    """The price list of the provider's batch interface, for prompts below the first tier; no rebate when left out."""
    date: datetime.date | None = None
    """When you looked the price up."""

    @field_validator("tiers")
    @classmethod
    def _told_apart(cls, tiers: tuple[TierSettings, ...]) -> tuple[TierSettings, ...]:
        if len({tier.above for tier in tiers}) < len(tiers):
            raise ValueError("two tiers begin above the same number of tokens")
        return tiers


class EnergySettings(Table):
    """What is known of the hardware behind a model."""

    kind: Literal["cpu", "gpu", "remote"] = "remote"
    """``cpu``: CPU seconds; ``gpu``: a known model on known GPUs; ``remote``: nothing known, a wide prior."""
    model: str | None = None
    """Exact id of a published model, as ``meta-llama/Llama-3.1-8B-Instruct``: gives its sizes, layers and K and V."""
    active_b: float | None = Field(default=None, gt=0)
    """Active parameters, in billions."""
    total_b: float | None = Field(default=None, gt=0)
    """Total parameters, in billions; the active ones when left out."""
    layers: int | None = Field(default=None, gt=0)
    """Layers of the model."""
    kv_bytes: float | None = Field(default=None, gt=0)
    """Bytes of K and V a token takes in the cache."""
    precision: Literal["bf16", "fp16", "fp8", "int8", "int4", "nf4", "mxfp4", "nvfp4"] | None = None
    """Of the weights; as published when left out."""
    weight_bits: float | None = Field(default=None, gt=0)
    """Bits a weight, where ``precision`` is left out."""
    experts: int | None = Field(default=None, gt=0)
    """Experts of a mixture."""
    experts_used: int | None = Field(default=None, gt=0)
    """Experts a token uses."""
    chip: str | None = None
    """The accelerator, by its name in agentflow.energy.chips."""
    gpus: int | None = Field(default=None, gt=0)
    """How many of them serve the model together."""
    engine: str | None = None
    """The server and its version, as ``vllm-0.11``."""
    batch: float | None = Field(default=None, gt=0)
    """Sequences the server decodes together, on average."""
    watts: float | None = Field(default=None, gt=0)
    """``cpu`` only: watts of one busy core."""


class ModelSettings(Table):
    """One model: a rung that cascades can name."""

    backend: Literal["openai", "llamacpp", "litellm"]
    """``openai``: any OpenAI-compatible server; ``llamacpp``: a GGUF file in this process; ``litellm``: a provider."""
    model: str = ""
    """The backend's name of the model; the table's own name when left out."""
    base_url: Address = None
    """Address of the server, up to and including /v1."""
    path: Path | None = None
    """``llamacpp``: the .gguf file."""
    api_key_env: VariableName = None
    """The NAME of the environment variable that holds the key."""
    context: int | None = Field(default=None, gt=0)
    """Tokens that prompt and reply may take together."""
    default_output: int = Field(default=1024, gt=0)
    """Tokens of a reply when a call does not say: what is held for it."""
    max_output: int | None = Field(default=None, gt=0)
    """Tokens of the longest reply the model gives; a call that asks for more gets these."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds one attempt may take."""
    price: PriceSettings | None = None
    """What it costs; looked up in the price book when left out."""
    energy: EnergySettings | None = None
    """Hardware facts for joules."""
    region: str = "WORLD"
    """Where its electricity comes from, by a code of agentflow.energy.grid; for grams of CO2 equivalent."""
    logprobs: bool = False
    """Ask for token probabilities, for confidence."""
    metrics: bool = False
    """``openai``: read the server's /metrics page around each call (vLLM, llama-server --metrics): its batch makes
    joules narrower."""
    stream: bool = True
    """Stream replies, so that time to first token is known."""
    retries: int = Field(default=2, ge=0, le=10)
    """Retries of a request that surely generated nothing."""
    threads: int = Field(default=1, gt=0)
    """``llamacpp``: CPU threads of a call."""
    measure: bool = False
    """``llamacpp``: read its joules off this machine's energy counters, where there are any (``agentflow energy
    probe`` says which); else they are estimated from CPU seconds."""
    slots: int = Field(default=1, gt=0)
    """``llamacpp``: calls served side by side."""

    @model_validator(mode="after")
    def _has_its_place(self) -> ModelSettings:
        if self.backend == "openai" and not self.base_url:
            raise ValueError("backend 'openai' needs base_url")
        if self.backend == "llamacpp" and self.path is None:
            raise ValueError("backend 'llamacpp' needs path, a .gguf file")
        if self.backend == "litellm" and not self.model:
            raise ValueError("backend 'litellm' needs model, as in 'openai/gpt-4o-mini'")
        return self


class CascadeSettings(Table):
    """An ordered set of rungs."""

    rungs: tuple[str, ...] = Field(min_length=1)
    """Names of models, cheapest first; ``code`` is the step's own code."""
    accept: _Share = 0.7
    """Confidence a reply needs while a dearer rung is left."""
    repairs: int = Field(default=1, ge=0, le=5)
    """How often a model is told what was wrong and asked again."""
    min_output: int = Field(default=64, gt=0)
    """Tokens below which a reply is not worth asking for."""

    @field_validator("rungs")
    @classmethod
    def _are_different(cls, rungs: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(rungs)) < len(rungs):
            raise ValueError("names a rung twice; each may stand once, cheapest first")
        return rungs


class LimitSettings(Table):
    """Limits of what may be spent; any may be left out."""

    usd: Annotated[Decimal, Field(gt=0, allow_inf_nan=False)] | None = None
    """Dollars."""
    joules: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Joules."""
    tokens: int | None = Field(default=None, gt=0)
    """Input and output tokens together."""
    grams_co2e: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Grams of CO2 equivalent."""
    calls: int | None = Field(default=None, gt=0)
    """Attempts, those of code included."""
    on_exceed: Literal["stop", "degrade", "ask"] = "stop"
    """What a call does that does not fit: end, try rungs that still fit, or wait for a person."""
    warn_at: float = Field(default=0.8, gt=0, le=1)
    """Share of a limit at which a warning is given."""
    landing: float = Field(default=0.0, ge=0, lt=1)
    """Share of every limit that only a last call may use."""


class BudgetSettings(LimitSettings):
    """Limits of every job, unless its own are given."""

    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Wall clock."""


class TenantSettings(Table):
    """Limits of one tenant, over all its jobs and chains together; each of them may be left out."""

    hour: LimitSettings | None = None
    """Of every hour, UTC."""
    day: LimitSettings | None = None
    """Of every day, UTC."""
    week: LimitSettings | None = None
    """Of every ISO week, UTC."""
    month: LimitSettings | None = None
    """Of every month, UTC."""
    total: LimitSettings | None = None
    """For good."""


class LedgerSettings(Table):
    """Where attempts and accounts are recorded."""

    kind: Literal["auto", "memory", "sqlite", "postgres"] = "auto"
    """``auto``: SQLite for jobs and tenants, memory for a bare chain. The others are for everything."""
    path: Path = Path(".agentflow/ledger.db")
    """``sqlite``: the file."""
    url_env: VariableName = None
    """``postgres``: the NAME of the environment variable that holds the address, with its password."""

    @model_validator(mode="after")
    def _has_its_place(self) -> LedgerSettings:
        if self.kind == "postgres" and not self.url_env:
            raise ValueError("ledger 'postgres' needs url_env, the name of the variable with the address")
        return self


class StoreSettings(Table):
    """Where things are kept."""

    runs: Path = Path(".agentflow/runs")
    """Run folders of jobs."""


class EmbedderSettings(Table):
    """The model that re-scores what BM25 found."""

    kind: Literal["sentence_transformers", "openai", "llamacpp"]
    """Which library or protocol."""
    model: str = ""
    """A folder or name of the model."""
    base_url: Address = None
    """``openai``: address up to and including /v1."""
    path: Path | None = None
    """``llamacpp``: the .gguf file."""
    api_key_env: VariableName = None
    """The NAME of the environment variable that holds the key."""
    price: _Money | None = None
    """``openai``: dollars per million tokens. Unknown is never free: 0 for a server of your own."""

    @model_validator(mode="after")
    def _has_its_place(self) -> EmbedderSettings:
        if self.kind == "openai" and (not self.base_url or not self.model or self.price is None):
            raise ValueError("embedder 'openai' needs base_url, model and price (0 for a server of your own)")
        if self.kind == "sentence_transformers" and not self.model:
            raise ValueError("embedder 'sentence_transformers' needs model")
        if self.kind == "llamacpp" and self.path is None:
            raise ValueError("embedder 'llamacpp' needs path, a .gguf file")
        return self


class ResearchSettings(Table):
    """The research job."""

    chunk_chars: int = Field(default=2_000, ge=200)
    """Characters of a chunk, at most."""
    passages: int = Field(default=8, gt=0, le=100)
    """Passages looked up for each sub-question."""
    most_passages: int = Field(default=16, gt=0, le=200)
    """Passages a synthesiser reads, over all sub-questions."""
    sub_questions: int = Field(default=4, gt=0, le=12)
    """Sub-questions of a plan, at most."""
    support: _Share = 0.6
    """Share of a claim's weight that its quotes must cover."""
    answerable: _Share = 0.5
    """Share of a question's weight that one passage must cover before code alone answers it."""
    embedder: EmbedderSettings | None = None
    """Re-score BM25's best few hundred chunks."""


class SourceSettings(Table):
    """Bounds on what is read."""

    max_file_mb: float = Field(default=50, gt=0)
    """Largest file."""
    max_files: int = Field(default=50_000, gt=0)
    """Most files of a folder."""
    max_page_mb: float = Field(default=20, gt=0)
    """Largest web page, decompressed."""
    page_timeout_s: float = Field(default=20, gt=0)
    """Seconds a page may take."""
    allow_private: bool = False
    """Fetch pages from private, loopback and link-local addresses too."""


class TelemetrySettings(Table):
    """Spans and metrics. Where they go is OpenTelemetry's own OTEL_EXPORTER_OTLP_ENDPOINT."""

    capture_content: bool = False
    """Record prompts and replies on spans too."""
    otel_compat: tuple[Literal["openinference", "mlflow"], ...] = ()
    """Other viewers whose names spans carry too: kinds of spans for Phoenix, dollars for MLflow."""


class Settings(BaseSettings):
    """All of it. Every table may be left out."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
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
    tenants: dict[str, TenantSettings] = Field(default_factory=dict[str, TenantSettings])
    """Tenants by name: whose budgets last longer than a job."""
    ledger: LedgerSettings = LedgerSettings()
    """Where attempts and accounts are recorded."""
    jobs: JobSettings = JobSettings()
    """Durable jobs."""
    stores: StoreSettings = StoreSettings()
    """Where things are kept."""
    research: ResearchSettings = ResearchSettings()
    """The research job."""
    sources: SourceSettings = SourceSettings()
    """Bounds on what is read."""
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


def load_settings(path: Path | None = None) -> Settings:
    """Read the configuration.

    Args:
        path: the file; when None, AGENTFLOW_CONFIG, else agentflow.toml in the working folder if there is one.

    Raises:
        ConfigError: the file is missing (when it was named), is not TOML, or says something that cannot be.
            The message names the file, the line and the key.
    """
    named = path or (Path(os.environ["AGENTFLOW_CONFIG"]) if os.environ.get("AGENTFLOW_CONFIG") else None)
    file = named or Path(CONFIG_FILE)
    text = _text(file) if named is not None or file.is_file() else ""
    data = _parsed(text, file)
    _refuse_unknown_variables()
    try:
        return Settings(**data)
    except ValidationError as error:
        raise ConfigError(explain(error, Settings, text, str(file), os.environ, _PREFIX)) from error
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = f"{_PREFIX}{field.group(1).upper()}" if field else f"of {_PREFIX}*"
        raise ConfigError(f"variable {name}: not valid JSON. Write tables and lists as JSON.") from error


def example_config() -> str:
    """An agentflow.toml with models, a cascade and a budget, to start from."""
    return EXAMPLE


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}. Check the path.") from error


def _parsed(text: str, file: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        line = at.group(1) if at else str(len(text.splitlines()))
        what = str(error)[: at.start()] if at else str(error)
        column = f" at column {at.group(2)}" if at else ""
        raise ConfigError(f"{file}, line {line}: not valid TOML: {what}{column}. Mend that line.") from error
    except RecursionError as error:
        raise ConfigError(f"{file} nests its values too deep to be read. Write tables instead.") from error
    for key in data:
        # A settings class takes arguments of its own; only tables may reach it.
        if key not in Settings.model_fields:
            line = line_of([key], text)
            raise ConfigError(f"{file}, line {line}: {key}: there is no such key; {_tables()}.")
    return data


def _refuse_unknown_variables() -> None:
    """A misspelt table in a variable would be passed over in silence."""
    for name in os.environ:
        table, nested, _ = name.upper().removeprefix(_PREFIX).partition("__")
        if name.upper().startswith(_PREFIX) and nested and table.lower() not in Settings.model_fields:
            raise ConfigError(f"variable {name}: there is no table '{table.lower()}'; {_tables()}.")


def _tables() -> str:
    return f"there are: {', '.join(sorted(Settings.model_fields))}"


EXAMPLE = """\
# agentflow.toml: every table may be left out. With no models, jobs run on code alone, at 0 dollars.

[models.small]                       # any OpenAI-compatible server: llama-server, vLLM, ...
backend = "openai"
model = "qwen2.5-7b-instruct"
base_url = "http://127.0.0.1:8080/v1"
context = 8192
price = { input = 0, output = 0 }    # your own server; unknown is never free, so say so
energy = { kind = "cpu" }

[models.large]
backend = "litellm"
model = "openai/gpt-4o-mini"
api_key_env = "OPENAI_API_KEY"       # the name of the variable, never the key

[cascades.default]
rungs = ["code", "small", "large"]   # cheapest first
accept = 0.7

[budget]                             # limits of every job
usd = 0.25
joules = 50000
seconds = 300
"""
