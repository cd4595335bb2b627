"""Every span and metric attribute name, once.

The ``gen_ai`` names are those of the OpenTelemetry semantic conventions v1.41.1, which are still in development;
a test compares them with the installed conventions. The ``agentflow`` names are ours. Imports nothing.
"""

from __future__ import annotations

from typing import Final

SNAPSHOT: Final = "semantic-conventions v1.41.1"
SCOPE: Final = "agentflow"

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
USAGE_CACHE_CREATION: Final = "gen_ai.usage.cache_creation.input_tokens"
USAGE_REASONING: Final = "gen_ai.usage.reasoning.output_tokens"
OUTPUT_TYPE: Final = "gen_ai.output.type"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
AGENT_NAME: Final = "gen_ai.agent.name"
WORKFLOW_NAME: Final = "gen_ai.workflow.name"
DATA_SOURCE_ID: Final = "gen_ai.data_source.id"
TOKEN_TYPE: Final = "gen_ai.token.type"
EVALUATION_EVENT: Final = "gen_ai.evaluation.result"
EVALUATION_NAME: Final = "gen_ai.evaluation.name"
EVALUATION_LABEL: Final = "gen_ai.evaluation.score.label"
EVALUATION_VALUE: Final = "gen_ai.evaluation.score.value"
EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
ERROR_TYPE: Final = "error.type"

# Proposed upstream, not merged: cost of one attempt, on attempt spans only.
COST_AMOUNT: Final = "gen_ai.usage.cost.amount"
COST_CURRENCY: Final = "gen_ai.usage.cost.currency"
COST_SOURCE: Final = "gen_ai.usage.cost.source"

# After the draft of the conventions' new repository. Viewers differ in which name of a cache write they read: set both.
USAGE_CACHE_WRITE: Final = "gen_ai.usage.cache_write.input_tokens"

ENERGY_AMOUNT: Final = "agentflow.usage.energy.amount"
ENERGY_LOW: Final = "agentflow.usage.energy.low"
ENERGY_HIGH: Final = "agentflow.usage.energy.high"
ENERGY_SOURCE: Final = "agentflow.usage.energy.source"
ATTEMPT_NUMBER: Final = "agentflow.attempt.number"
ATTEMPT_OUTCOME: Final = "agentflow.attempt.outcome"
ATTEMPT_IGNORED: Final = "agentflow.attempt.ignored"
ATTEMPT_REPLAYED: Final = "agentflow.attempt.replayed"
RUNG_NAME: Final = "agentflow.rung.name"
RUNG_KIND: Final = "agentflow.rung.kind"
ESCALATION_REASON: Final = "agentflow.escalation.reason"
CALL_PATH: Final = "agentflow.call.path"
JOB_STATE: Final = "agentflow.job.state"
BUDGET_REFUSED: Final = "agentflow.budget.refused"
# Followed by a currency: what is left of it at the tightest node, and what is held for an attempt.
BUDGET_LEFT: Final = "agentflow.budget.left."
BUDGET_HELD: Final = "agentflow.budget.held."

# Other viewers' names, added on request only: OpenInference's kind of a span, MLflow's dollars as JSON.
OPENINFERENCE_KIND: Final = "openinference.span.kind"
MLFLOW_COST: Final = "mlflow.llm.cost"

METRIC_DURATION: Final = "gen_ai.client.operation.duration"
METRIC_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
METRIC_TOKENS: Final = "gen_ai.client.token.usage"
METRIC_COST: Final = "gen_ai.client.operation.cost"
METRIC_ENERGY: Final = "agentflow.energy"
METRIC_PROMPT_CACHE: Final = "agentflow.prompt_cache.input_tokens"
METRIC_REUSE: Final = "agentflow.reuse.lookups"
CACHE_HIT: Final = "agentflow.cache.hit"
CASCADE_NAME: Final = "agentflow.cascade.name"
