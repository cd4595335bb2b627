"""``[models.NAME]``: a model, what it costs, and the hardware behind it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from agentflow.config.lanes import LaneSettings
from agentflow.config.table import Address, Rate, Table, VariableName


class RateSettings(Table):
    """One price list, in dollars. What is left out is never free."""

    input: Rate
    """A million prompt tokens."""
    output: Rate
    """A million reply tokens."""
    cache_read: Rate | None = None
    """A million prompt tokens read from the provider's cache; the full input price when left out."""
    cache_write: Rate | None = None
    """A million prompt tokens written to the provider's cache; the full input price when left out."""
    reasoning: Rate | None = None
    """A million reply tokens spent on thinking; the output price when left out."""
    image: Rate | None = None
    """One image; calls with images are refused when left out."""
    audio_second: Rate | None = None
    """One second of audio; calls with audio are refused when left out."""
    request: Rate | None = None
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


class ModelSettings(LaneSettings):
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
        if self.backend == "llamacpp" and self.hedge and self.hedge_with is None:
            raise ValueError("hedge needs hedge_with here: a second attempt in this process would slow the first")
        return self
