"""Configuration: agentflow.toml and AGENTFLOW_* variables, checked by pydantic. Imports errors.

The file is looked for in the working folder; AGENTFLOW_CONFIG names another. A variable wins over the file:
``AGENTFLOW_BUDGET__USD=0.5``, ``AGENTFLOW_MODELS__SMALL__BASE_URL=...``. Keys of providers are never in the file, only
the names of the variables that hold them. Each table has its file; ``settings`` holds them, ``loading`` reads them.
"""

from agentflow.config.cascades import CODE, CascadeSettings
from agentflow.config.cassette import CassetteSettings
from agentflow.config.efforts import EffortName, EffortSettings
from agentflow.config.jobs import JobSettings, JobStoreSettings, QueueSettings
from agentflow.config.lanes import BreakerSettings, ConcurrencySettings, LaneSettings
from agentflow.config.limits import BudgetSettings, LedgerSettings, LimitSettings, TenantSettings
from agentflow.config.loading import CONFIG_FILE, EXAMPLE, example_config, load_settings
from agentflow.config.models import EnergySettings, ModelSettings, PriceSettings, RateSettings, TierSettings
from agentflow.config.research import EmbedderSettings, ResearchSettings, SourceSettings
from agentflow.config.server import ServerSettings
from agentflow.config.settings import Settings, StoreSettings, TelemetrySettings

__all__ = [
    "CODE",
    "CONFIG_FILE",
    "EXAMPLE",
    "BreakerSettings",
    "BudgetSettings",
    "CascadeSettings",
    "CassetteSettings",
    "ConcurrencySettings",
    "EffortName",
    "EffortSettings",
    "EmbedderSettings",
    "EnergySettings",
    "JobSettings",
    "JobStoreSettings",
    "LaneSettings",
    "LedgerSettings",
    "LimitSettings",
    "ModelSettings",
    "PriceSettings",
    "QueueSettings",
    "RateSettings",
    "ResearchSettings",
    "ServerSettings",
    "Settings",
    "SourceSettings",
    "StoreSettings",
    "TelemetrySettings",
    "TenantSettings",
    "TierSettings",
    "example_config",
    "load_settings",
]
