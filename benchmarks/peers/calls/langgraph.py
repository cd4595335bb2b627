"""A langgraph graph of one node that asks langchain-openai. Runs in an interpreter that has both."""

# Type checkers see the environment of the project, which cannot have this peer.
# pyright: reportMissingImports=false

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.peers.calling import MAX_TOKENS, MESSAGES, MODEL, TIMEOUT_S, Call, run

os.environ["LANGSMITH_TRACING"] = "false"


@asynccontextmanager
async def open_client(base_url: str) -> AsyncGenerator[Call]:
    from langchain_openai import ChatOpenAI
    from langgraph.graph import END, START, MessagesState, StateGraph

    settings: dict[str, Any] = {"model": MODEL, "max_tokens": MAX_TOKENS, "max_retries": 0, "timeout": TIMEOUT_S}
    model = ChatOpenAI(base_url=base_url, api_key="none", **settings)

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    graph = builder.compile()

    async def call() -> str:
        return (await graph.ainvoke({"messages": MESSAGES}))["messages"][-1].content

    yield call


if __name__ == "__main__":
    run(open_client)
