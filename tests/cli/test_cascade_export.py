from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentflow.budget.ledger import Labels
from agentflow.cascade.escalations import EscalationLog, Lesson
from agentflow.config import Settings
from agentflow.errors import UsageError
from agentflow.flow import Flow
from agentflow.messages import Image, Message, Request
from tests.cli.test_budget_command import run
from tests.servers.openai_server import ScriptedServer


class Sum(BaseModel):
    total: int


ASK = Request(
    (Message("system", "Add."), Message("user", "What is 2 + 2?", images=(Image(b"png", "image/png", 9, 9),)))
)


async def calls(server: ScriptedServer, *, keep: bool) -> None:
    """One call that escalates, one that does not, one that nobody answers well."""
    server.script(
        {
            "small": [{"text": "four"}, {"text": "four"}, {"json": {"total": 1}}, {"text": "no"}, {"text": "no"}],
            "large": [{"json": {"total": 4}}, {"text": "no"}],
        }
    )
    model = {
        "backend": "openai",
        "base_url": server.url,
        "price": {"input": 1, "output": 2},
        "serves": ["text", "json", "vision"],
    }
    config: dict[str, Any] = {
        "models": {"small": model, "large": model},
        "cascades": {"default": {"rungs": ["small", "large"]}},
        "ledger": {"kind": "sqlite"},
        "distillation": {"keep_prompts": keep},
    }
    Path("agentflow.toml").write_text(
        "[ledger]\nkind = 'sqlite'\n" + ("[distillation]\nkeep_prompts = true\n" if keep else "")
    )
    async with Flow(Settings.model_validate(config)) as flow, flow.chain("adding") as chain:
        assert (await chain.call(ASK, output=Sum, name="add")).rung == "large"
        assert (await chain.call("one", output=Sum)).rung == "small"
        with pytest.raises(Exception, match="No rung"):
            await chain.call("none", output=Sum)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


async def test_what_a_larger_model_answered_is_a_chat_to_learn_from(
    scripted_server: ScriptedServer, here: Path
) -> None:
    await calls(scripted_server, keep=True)
    run("cascade", "export", "--to", "set.jsonl", "--with-content")
    (line,) = lines(here / "set.jsonl")
    system, question, answer = line["messages"]
    assert (system["role"], system["content"], answer["role"]) == ("system", "Add.", "assistant")
    assert question["content"][0]["text"] == "What is 2 + 2?"
    assert question["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert json.loads(answer["content"]) == {"total": 4}
    told = line["metadata"]
    assert (told["cascade"], told["name"], told["passed"]["rung"]) == ("default", "add", "large")
    assert [attempt["outcome"] for attempt in told["failed"]] == ["rejected", "rejected"]
    assert "Invalid JSON" in told["failed"][0]["reason"]
    assert float(told["passed"]["usd"]) > 0
    kept = next((here / ".agentflow" / "escalations").iterdir())
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_without_content_there_are_ids_and_figures_alone(scripted_server: ScriptedServer, here: Path) -> None:
    await calls(scripted_server, keep=False)
    assert not (here / ".agentflow" / "escalations").exists()
    run("cascade", "export", "--to", "set.jsonl")
    (line,) = lines(here / "set.jsonl")
    assert "2 + 2" not in json.dumps(line)
    assert (line["passed"]["rung"], [a["rung"] for a in line["failed"]]) == ("large", ["small", "small"])
    assert line["call"].startswith("adding-")
    assert "keep_prompts = true" in run("cascade", "export", "--to", "more.jsonl", "--with-content", code=2)
    assert not (here / "more.jsonl").exists()


async def test_filters_leave_out_other_cascades_and_earlier_days(scripted_server: ScriptedServer, here: Path) -> None:
    await calls(scripted_server, keep=True)
    for content in ([], ["--with-content"]):
        run("cascade", "export", "--to", "a", "--force", "--cascade", "other", *content)
        assert lines(here / "a") == []
        run("cascade", "export", "--to", "a", "--force", "--since", "1h", *content)
        assert len(lines(here / "a")) == 1


async def test_a_file_that_is_there_is_not_replaced_unless_it_is_said(
    scripted_server: ScriptedServer, here: Path
) -> None:
    await calls(scripted_server, keep=False)
    (here / "mine").write_text("precious")
    assert "--force" in run("cascade", "export", "--to", "mine", code=2)
    assert (here / "mine").read_text() == "precious"
    run("cascade", "export", "--to", "mine", "--force")
    assert len(lines(here / "mine")) == 1
    assert "cannot be written" in run("cascade", "export", "--to", "none/at/all", code=2)
    assert sorted(p.name for p in here.iterdir()) == [".agentflow", "agentflow.toml", "mine"]


def test_a_half_written_file_is_no_file(here: Path) -> None:
    from agentflow.cli.cascade.export import write_whole

    def broken() -> Any:
        yield "one"
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError, match="No space"):
        write_whole(here / "set", broken())
    assert list(here.iterdir()) == []


async def test_files_older_than_they_may_be_are_deleted_and_broken_lines_left_out(here: Path) -> None:
    from agentflow.budget.spend import Spend
    from agentflow.cascade.reply import Attempt, Reply

    old = here / "kept" / "2020-01-01.jsonl"
    old.parent.mkdir()
    old.write_text("{}\n")
    log = EscalationLog(here / "kept", 30, lambda: datetime(2026, 11, 21, tzinfo=UTC).timestamp())
    failed = Attempt("small", "model", 1, "rejected", Spend(), reason="no")
    passed = Attempt("large", "model", 2, "accepted", Spend())
    reply = Reply("4", "4", "large", "model", None, (failed, passed))
    await log.note("key", Labels(), ASK, reply, Lesson((failed,), passed))
    assert not old.exists()
    with (here / "kept" / "2026-11-21.jsonl").open("a") as file:
        file.write('{"cut off')
    assert [line["call"] for line in log.read()] == ["key"]
    assert list(log.read(since=datetime(2027, 1, 1, tzinfo=UTC))) == []
