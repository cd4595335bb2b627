"""``POST /v1/embeddings``: texts as vectors, by the configured embedder, metered like a call. Imports asking."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from typing import Annotated, Final, Literal, cast

import numpy as np
from fastapi import APIRouter, Body
from pydantic import BaseModel, Field
from starlette.responses import Response

from agentflow.errors import UnknownModel
from agentflow.messages import Message, Request
from agentflow.research.embedders import Vectors
from agentflow.research.retrieval_rung import embedding_all
from agentflow.server.access import AdmittingRoute, Caller, Submitter
from agentflow.server.answering import Head, WorkedResponse
from agentflow.server.openai.asking import chain_of
from agentflow.server.openai.bill import Bill, headers
from agentflow.server.openai.parameters import Extension, ModelName, Part, Refused
from agentflow.server.openai.targets import embedder_name, find
from agentflow.server.state import Server, TheServer

router = APIRouter(prefix="/v1", tags=["openai"], route_class=AdmittingRoute)
MOST_TEXTS: Final = 2_048
_NAME: Final = "embedding"
_EXAMPLE: Final = {"model": "nomic-embed", "input": ["The tide rises.", "The moon pulls."]}
_Text = Annotated[str, Field(min_length=1)]


class EmbeddingRequest(Part):
    """What OpenAI's clients send to embeddings."""

    model: ModelName
    input: _Text | Annotated[list[_Text], Field(min_length=1, max_length=MOST_TEXTS)]
    encoding_format: Literal["float", "base64"] | None = Field(default=None, description="float when left out")
    dimensions: Refused = None
    agentflow: Extension = Extension()

    @property
    def texts(self) -> tuple[str, ...]:
        """What is to be embedded."""
        return (self.input,) if isinstance(self.input, str) else tuple(self.input)


class Embedding(BaseModel):
    """The vector of one text: of unit length; as base64, the bytes of its float32 figures, the lowest first."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens that were sent to an embedder elsewhere, and the whole bill."""

    prompt_tokens: int
    total_tokens: int
    agentflow: Bill


class EmbeddingList(BaseModel):
    """The vectors, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


@router.post("/embeddings", summary="Embed texts", response_model=EmbeddingList)
async def create_embeddings(
    server: TheServer, caller: Submitter, body: Annotated[EmbeddingRequest, Body(examples=[_EXAMPLE])]
) -> Response:
    """Their vectors by the embedder of the configuration, with what it cost in ``usage.agentflow`` and in headers."""
    return WorkedResponse(lambda: _embedded(server, caller, body), refused=server.refused)


async def _embedded(server: Server, caller: Caller, body: EmbeddingRequest) -> AsyncGenerator[Head | bytes]:
    known = embedder_name(server.settings)
    facts, rung = server.settings.research.embedder, server.runtime.embedding
    if facts is None or rung is None or body.model != known:
        if known is None:
            raise UnknownModel("No embedder is configured. Set one in [research.embedder].")
        find(server.settings, body.model)
        raise UnknownModel(f"'{body.model[:80]}' does not embed. The embedder is called '{known}'.")
    texts = body.texts
    cascade = server.runtime.code(embedding_all(rung, facts, texts))
    request = Request((Message("user", f"{len(texts)} texts"),), inputs=texts)
    async with await chain_of(server, caller, _NAME, cascade, body.agentflow) as chain:
        reply = await chain.call(request, output=object, name=_NAME)
    server.metrics.served(reply)
    vectors = np.frombuffer(cast("bytes", reply.output), dtype=np.float32).reshape(len(texts), -1)
    tokens = reply.spend.usage.input
    made = EmbeddingList(
        data=[
            Embedding(index=place, embedding=_written(vectors[place], body.encoding_format))
            for place in range(len(texts))
        ],
        model=body.model,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens, agentflow=Bill.of(reply)),
    )
    yield Head("application/json", headers(reply))
    yield made.model_dump_json().encode()


def _written(vector: Vectors, form: str | None) -> list[float] | str:
    return base64.b64encode(vector.tobytes()).decode("ascii") if form == "base64" else vector.tolist()
