"""``[models.NAME]``: a model, what it costs, and the hardware behind it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, field_validator, model_validator

from agentflow.config.lanes import LaneSettings
from agentflow.config.table import Address, HttpAddress, Rate, Table, Tags, VariableName

# Settings that one kind of backend alone reads: with another they would do nothing.
_READ_BY: Final[Mapping[str, frozenset[str]]] = {
    "openai": frozenset(("base_urls", "metrics", "dialect", "stream")),
    "llamacpp": frozenset(("path", "measure", "slots", "gpu_layers")),
}


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
    """One image, beside the prompt tokens that it is counted as; those alone when left out."""
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


class RegionSettings(Table):
    """One region of a model; what is left out is as the model's own table says."""

    base_url: Address = None
    """Address of the server there, up to and including /v1."""
    model: str = ""
    """The backend's name of the model there."""
    api_key_env: VariableName = None
    """The NAME of the environment variable that holds the key."""
    price: PriceSettings | None = None
    """What it costs there."""
    region: str | None = None
    """Where its electricity comes from, by a code of agentflow.energy.grid."""
    zone: str | None = None
    """The region's name in your tables of hours; its code when left out."""
    latency_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Seconds that the way there and a usual reply take."""
    residency: Tags = ()
    """Tags that residency rules name, such as ``eu``."""


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
    base_urls: tuple[HttpAddress, ...] = ()
    """``openai``: instead of base_url, the addresses of several servers of this one model. A prompt goes to the one
    that has read its beginning before, unless that one is much busier than another; dead ones are left out."""
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
    serves: tuple[Literal["text", "vision", "tools", "json", "logprobs"], ...] | None = None
    """What it takes and gives. When left out: all of it, ``vision`` only if the model is known to take images."""
    residency: Tags = ()
    """Tags that residency rules name, such as ``eu``, of the one place where it runs."""
    regions: dict[str, RegionSettings] = Field(default_factory=dict[str, RegionSettings])
    """Places where it runs, by your own names, instead of one."""
    logprobs: bool = False
    """Ask for token probabilities, for confidence."""
    metrics: bool = False
    """``openai``: read the server's /metrics page around each call (vLLM, llama-server --metrics): its batch makes
    joules narrower."""
    dialect: Literal["auto", "openai", "vllm", "llamacpp"] = "auto"
    """``openai``: what the server adds to OpenAI's API. ``auto`` asks it, once a call would be sent otherwise."""
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
    gpu_layers: int | None = Field(default=None, ge=0)
    """``llamacpp``: layers computed on a GPU; what fits when left out, where llama.cpp was built for one."""

    @model_validator(mode="after")
    def _is_read(self) -> ModelSettings:
        for backend, settings in _READ_BY.items():
            idle = self.said(settings)
            if idle and backend != self.backend:
                raise ValueError(f"{' and '.join(idle)}: of backend '{backend}' alone; remove it, or name that backend")
        return self

    @model_validator(mode="after")
    def _has_its_place(self) -> ModelSettings:
        if self.regions and self.residency:
            raise ValueError("residency is said of each of its regions, not of the model beside them")
        if self.regions and (self.backend == "llamacpp" or self.base_urls):
            raise ValueError("regions are of a model on a server, in place of base_urls")
        everywhere = bool(self.regions) and all(region.base_url for region in self.regions.values())
        if self.backend == "openai" and not (self.base_url or self.base_urls or everywhere):
            raise ValueError("backend 'openai' needs base_url, or base_urls of several servers")
        if self.base_urls and (self.base_url or self.backend != "openai"):
            raise ValueError("base_urls are for backend 'openai', instead of base_url")
        if len({address.rstrip("/") for address in self.base_urls}) < len(self.base_urls):
            raise ValueError("base_urls names a server twice")
        if self.backend == "llamacpp" and self.path is None:
            raise ValueError("backend 'llamacpp' needs path, a .gguf file")
        if self.backend == "litellm" and not self.model:
            raise ValueError("backend 'litellm' needs model, as in 'openai/gpt-4o-mini'")
        if self.backend == "llamacpp" and self.hedge and self.hedge_with is None:
            raise ValueError("hedge needs hedge_with here: a second attempt in this process would slow the first")
        return self
