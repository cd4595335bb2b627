"""EcoLogits on the same runs: the package where it is installed, else the formula it publishes, and says which.

The formula (version 0.11): ``1.16653e-6 * exp(-0.0112059 * 64) * active + 4.05293e-5`` watt-hours per output token and
GPU, with active parameters in billions; GPUs are the power of two that holds 1.2 times the weights at 16 bit in 80 GB.
Boards alone are compared, as measured: neither its server nor its PUE.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
from collections.abc import Callable
from typing import Any

from benchmarks.energy_rows import Row

_JOULES_PER_KWH = 3.6e6


def published_formula(active_b: float, total_b: float) -> float:
    """Board joules per output token, by the published formula."""
    gpus = 2 ** math.ceil(math.log2(math.ceil(1.2 * total_b * 16 / 8 / 80)))
    watt_hours = 1.1665273170451914e-06 * math.exp(-0.011205921025579175 * 64) * active_b + 4.052928146734005e-05
    return gpus * watt_hours / 1000 * _JOULES_PER_KWH


def peer() -> tuple[str, Callable[[Row], float]]:
    """What stands for EcoLogits here, and its joules per output token of a run."""
    try:
        impacts: Any = importlib.import_module("ecologits.impacts.llm")
        version = importlib.metadata.version("ecologits")
    except ImportError:
        return "EcoLogits is not installed: its published formula instead", _by_formula

    def by_package(row: Row) -> float:
        found = impacts.compute_llm_impacts_dag(
            model_active_parameter_count=row.active_b, model_total_parameter_count=row.total_b,
            output_token_count=row.output_tokens, request_latency=math.inf, if_electricity_mix_adpe=0.0,
            if_electricity_mix_pe=0.0, if_electricity_mix_gwp=0.0, if_electricity_mix_wue=0.0,
            datacenter_pue=1.0, datacenter_wue=0.0,
        )  # fmt: skip
        return found["gpu_energy"] * found["gpu_required_count"] * _JOULES_PER_KWH / row.output_tokens

    return f"EcoLogits {version}", by_package


def _by_formula(row: Row) -> float:
    return published_formula(row.active_b, row.total_b)
