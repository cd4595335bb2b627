"""Configuration: agentflow.toml and AGENTFLOW_* variables, checked by pydantic. Imports errors only.

The file is looked for in the working folder; AGENTFLOW_CONFIG names another. A variable wins over the file:
``AGENTFLOW_BUDGET__USD=0.5``, ``AGENTFLOW_MODELS__SMALL__BASE_URL=...``. Keys of providers are never in the file, only
the names of the variables that hold them.
"""

from __future__ import annotations

import os
import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agentflow.errors import ConfigError

CONFIG_FILE = "agentflow.toml"
CODE = "code"
_Money = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PriceSettings(_Table):
    """Dollars per million tokens."""

    input: _Money
    """Prompt tokens."""
    output: _Money
    """Reply tokens."""
    cache_read: _Money | None = None
    """Prompt tokens read from the provider's cache; the full input price when left out."""
    cache_write: _Money | None = None
    """Prompt tokens written to the provider's cache; the full input price when left out."""


class EnergySettings(_Table):
    """What is known of the hardware behind a model."""

    kind: Literal["cpu", "gpu", "remote"] = "remote"
    """``cpu``: CPU seconds; ``gpu``: a known model on known GPUs; ``remote``: nothing known, a wide prior."""
    active_b: float | None = Field(default=None, gt=0)
    """Active parameters, in billions."""
    total_b: float | None = Field(default=None, gt=0)
    """Total parameters, in billions; the active ones when left out."""
    layers: int | None = Field(default=None, gt=0)
    """Layers of the model."""
    kv_bytes: float | None = Field(default=None, gt=0)
    """Bytes of K and V a token takes in the cache."""
    weight_bits: float | None = Field(default=None, gt=0)
    """Bits a weight: 16 when left out."""
    experts: int | None = Field(default=None, gt=0)
    """Experts of a mixture."""
    experts_used: int | None = Field(default=None, gt=0)
    """Experts a token uses."""
    chip: str | None = None
    """The accelerator, by its name in agentflow.energy.chips."""
    gpus: int | None = Field(default=None, gt=0)
    """How many of them serve the model together."""
    batch: float | None = Field(default=None, gt=0)
    """Sequences the server decodes together, on average."""
    watts: float | None = Field(default=None, gt=0)
    """``cpu`` only: watts of one busy core."""


class ModelSettings(_Table):
    """One model: a rung that cascades can name."""

    backend: Literal["openai", "llamacpp", "litellm"]
    """``openai``: any OpenAI-compatible server; ``llamacpp``: a GGUF file in this process; ``litellm``: a provider."""
    model: str = ""
    """The backend's name of the model; the table's own name when left out."""
    base_url: str | None = None
    """Address of the server, up to and including /v1."""
    path: Path | None = None
    """``llamacpp``: the .gguf file."""
    api_key_env: str | None = None
    """The NAME of the environment variable that holds the key."""
    context: int | None = Field(default=None, gt=0)
    """Tokens that prompt and reply may take together."""
    max_output: int = Field(default=1024, gt=0)
    """Tokens of a reply when a call does not say, and the most it may ask for."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds one attempt may take."""
    price: PriceSettings | None = None
    """Dollars per million tokens; looked up in the price book when left out."""
    energy: EnergySettings | None = None
    """Hardware facts for joules."""
    logprobs: bool = False
    """Ask for token probabilities, for confidence."""
    stream: bool = True
    """Stream replies, so that time to first token is known."""
    retries: int = Field(default=2, ge=0, le=10)
    """Retries of a request that surely generated nothing."""
    threads: int = Field(default=1, gt=0)
    """``llamacpp``: CPU threads of a call."""
    slots: int = Field(default=1, gt=0)
    """``llamacpp``: calls served side by side."""

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", value):
            raise ValueError("must be the name of an environment variable, not a key itself")
        return value

    @model_validator(mode="after")
    def _has_its_place(self) -> ModelSettings:
        if self.backend == "openai" and not self.base_url:
            raise ValueError("backend 'openai' needs base_url")
        if self.backend == "llamacpp" and self.path is None:
            raise ValueError("backend 'llamacpp' needs path, a .gguf file")
        if self.backend == "litellm" and not self.model:
            raise ValueError("backend 'litellm' needs model, as in 'openai/gpt-4o-mini'")
        return self


class CascadeSettings(_Table):
    """An ordered set of rungs."""

    rungs: tuple[str, ...] = Field(min_length=1)
    """Names of models, cheapest first; ``code`` is the step's own code."""
    accept: _Share = 0.7
    """Confidence a reply needs while a dearer rung is left."""
    repairs: int = Field(default=1, ge=0, le=5)
    """How often a model is told what was wrong and asked again."""
    min_output: int = Field(default=64, gt=0)
    """Tokens below which a reply is not worth asking for."""


class BudgetSettings(_Table):
    """Limits of every job, unless its own are given."""

    usd: Annotated[Decimal, Field(gt=0, allow_inf_nan=False)] | None = None
    """Dollars."""
    joules: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Joules."""
    tokens: int | None = Field(default=None, gt=0)
    """Input and output tokens together."""
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Wall clock."""


class StoreSettings(_Table):
    """Where things are kept."""

    runs: Path = Path(".agentflow/runs")
    """Run folders of jobs."""


class EmbedderSettings(_Table):
    """The model that re-scores what BM25 found."""

    kind: Literal["sentence_transformers", "openai", "llamacpp"]
    """Which library or protocol."""
    model: str = ""
    """A folder or name of the model."""
    base_url: str | None = None
    """``openai``: address up to and including /v1."""
    path: Path | None = None
    """``llamacpp``: the .gguf file."""
    api_key_env: str | None = None
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


class ResearchSettings(_Table):
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


class SourceSettings(_Table):
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


class Settings(BaseSettings):
    """All of it. Every table may be left out."""

    model_config = SettingsConfigDict(
        env_prefix="AGENTFLOW_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    models: dict[str, ModelSettings] = Field(default_factory=dict[str, ModelSettings])
    """Models by the names that cascades use."""
    cascades: dict[str, CascadeSettings] = Field(default_factory=dict[str, CascadeSettings])
    """Cascades by name: ``default``, and one for any agent that needs its own."""
    budget: BudgetSettings = BudgetSettings()
    """Limits of every job."""
    stores: StoreSettings = StoreSettings()
    """Where things are kept."""
    research: ResearchSettings = ResearchSettings()
    """The research job."""
    sources: SourceSettings = SourceSettings()
    """Bounds on what is read."""

    @model_validator(mode="after")
    def _rungs_exist(self) -> Settings:
        for name, cascade in self.cascades.items():
            for rung in cascade.rungs:
                if rung != CODE and rung not in self.models:
                    known = ", ".join([CODE, *self.models])
                    raise ValueError(f"cascades.{name}.rungs names '{rung}', which is not a model; there are: {known}")
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
    text = ""
    if named is not None or file.is_file():
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} cannot be read: {error}. Check the path, or unset AGENTFLOW_CONFIG.") from error
    try:
        return Settings(**_parsed(text, file))
    except ValidationError as error:
        raise ConfigError(_explained(error, text, file)) from error


def _parsed(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = "" if "line" in str(error) else f", line {len(text.splitlines())}"
        raise ConfigError(f"{file}{line} is not valid TOML: {error}. Mend that line.") from error


def _explained(error: ValidationError, text: str, file: Path) -> str:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    said = re.match(r"\w+(?:\.\w+)+", message)
    keys = [str(part) for part in first["loc"]] or (said.group().split(".") if said else [])
    where = ".".join(keys) or "configuration"
    line = _line_of(keys, text)
    place = f"{file}, line {line}" if line else (f"{file}" if text else "the AGENTFLOW_* environment")
    more = f" ({error.error_count() - 1} more after it)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        message = "there is no such key"
    return f"{place}: {where}: {message}{more}."


def _line_of(keys: list[str], text: str) -> int | None:
    """The line where the last of ``keys`` is set below the tables named by those before it; a best effort."""
    number = None
    table = ""
    for count, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[([^\]]+)\]", line)
        if header:
            table = header.group(1).strip().replace('"', "")
            if keys and table == ".".join(keys[: table.count(".") + 1]):
                number = count
            continue
        key = re.match(r"\s*([\w.-]+)\s*=", line)
        if key:
            full = f"{table}.{key.group(1)}" if table else key.group(1)
            if ".".join(keys).startswith(full):
                return count
    return number


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
