"""Responses in the background: a durable job that a worker does, whatever happens to workers and clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server.test_chat import USAGE
from tests.server.test_responses import on_disk
from tests.servers.api import Api, Background, key, toml
from tests.servers.openai_server import ScriptedServer

SECRET = "kelp-forest-8841"


@pytest.fixture(scope="module")
def folder(models: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("background")
    more = "[jobs]\nlease_s = 1.0\nretry_s = 0.05\n[server]\nheartbeat_s = 0.5\n"
    (folder / "agentflow.toml").write_text(toml(models, more).replace('["code", "small", "large"]', '["small"]'))
    return folder


@pytest.fixture(scope="module")
def tokens(folder: Path) -> dict[str, str]:
    return {name: key(folder, name) for name in ("acme", "other")}


@pytest.fixture(scope="module")
def clients(api: Api, tokens: dict[str, str]) -> Iterator[Callable[[str], openai.OpenAI]]:
    made = {
        name: openai.OpenAI(base_url=f"{api.url}/v1", api_key=token, max_retries=0) for name, token in tokens.items()
    }
    yield lambda name: made[name]
    for client in made.values():
        client.close()


@pytest.fixture
def client(clients: Callable[[str], openai.OpenAI]) -> openai.OpenAI:
    return clients("acme")


@pytest.fixture(scope="module")
def workers(folder: Path) -> Iterator[list[Background]]:
    """The worker that is alive is the last."""
    started = [Background(folder, "worker")]
    yield started
    for worker in started:
        worker.kill()


pytestmark = pytest.mark.usefixtures("workers")


def until(what: Callable[[], Any]) -> Any:
    """The first true answer."""
    ends = time.monotonic() + 50
    while not (found := what()):
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.03)
    return found


def ended(client: openai.OpenAI, id: str) -> Any:
    """A response once it has ended."""

    def look() -> Any:
        found = client.responses.retrieve(id)
        return None if found.status in ("queued", "in_progress") else found

    return until(look)


def test_it_is_there_at_once_and_answered_by_a_worker(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "Sixteen metres.", "usage": USAGE, "gate": "first"}]})
    raw = client.responses.with_raw_response.create(
        model="default", input="How high is the tide?", background=True, metadata={"ticket": "7"}
    )
    queued = raw.parse()
    assert raw.status_code == 200 and (queued.status, queued.background, queued.output) == ("queued", True, [])
    until(lambda: client.responses.retrieve(queued.id).status == "in_progress")
    models.release("first")
    done = ended(client, queued.id)
    assert (done.status, done.output_text, done.metadata) == ("completed", "Sixteen metres.", {"ticket": "7"})
    assert done.usage is not None and done.usage.total_tokens == 150
    assert done.usage.model_dump()["agentflow"]["usd"] == "0.0002"
    (item,) = client.responses.input_items.list(queued.id)
    assert item.model_dump()["content"][0]["text"] == "How high is the tide?"
    models.script({"small": [{"text": "The moon.", "usage": USAGE}]})
    after = client.responses.create(model="default", input="Why?", previous_response_id=queued.id, background=True)
    assert ended(client, after.id).output_text == "The moon."
    assert [m["content"] for m in models.requests()[-1]["body"]["messages"]] == [
        "How high is the tide?", "Sixteen metres.", "Why?",
    ]  # fmt: skip


def test_its_events_have_the_same_numbers_for_every_reader(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "Sixteen metres.", "usage": USAGE}]})
    live = list(client.responses.create(model="default", input="How high?", background=True, stream=True))
    assert [event.sequence_number for event in live] == list(range(len(live)))
    assert [event.type for event in live][:3] == ["response.created", "response.queued", "response.in_progress"]
    assert live[-1].type == "response.completed" and live[-1].response.output_text == "Sixteen metres."
    assert "".join(e.delta for e in live if e.type == "response.output_text.delta") == "Sixteen metres."
    id = live[-1].response.id
    again = list(client.responses.retrieve(id, stream=True))
    assert [event.model_dump() for event in again] == [event.model_dump() for event in live]
    rest = list(client.responses.retrieve(id, stream=True, starting_after=3))
    assert [event.model_dump() for event in rest] == [event.model_dump() for event in live[4:]]


def test_a_reader_follows_it_while_it_is_made(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "Sixteen metres.", "usage": USAGE, "gate": "followed"}]})
    queued = client.responses.create(model="default", input="How high?", background=True)
    with client.responses.retrieve(queued.id, stream=True) as stream:
        for event in stream:
            if event.type == "response.in_progress":
                models.release("followed")
    assert event.type == "response.completed"


def test_a_worker_that_dies_costs_nothing_twice(
    client: openai.OpenAI, models: ScriptedServer, folder: Path, workers: list[Background]
) -> None:
    models.script({"small": [{"text": "no JSON"}, {"json": {"metres": 16}, "usage": USAGE, "gate": "slow"}]})
    before = len(models.requests())
    asked: Any = {"format": {"type": "json_schema", "name": "tide", "schema": {"type": "object"}}}
    queued = client.responses.create(model="default", input="How high?", text=asked, background=True)
    until(lambda: len(models.requests()) == before + 2)
    workers[-1].kill()
    models.script({"small": [{"json": {"metres": 16}, "usage": USAGE}]})
    workers.append(Background(folder, "worker"))
    done = ended(client, queued.id)
    assert (done.status, done.output_text) == ("completed", '{"metres": 16}')
    assert len(models.requests()) == before + 3, "what was answered is not asked again; what broke off is"


def test_one_that_is_cancelled_stays_so(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "Sixteen metres.", "usage": USAGE, "gate": "never"}]})
    queued = client.responses.create(model="default", input="How high?", background=True)
    before = models.disconnects()
    until(lambda: client.responses.retrieve(queued.id).status == "in_progress")
    assert client.responses.cancel(queued.id).status == "cancelled"
    assert client.responses.cancel(queued.id).status == client.responses.retrieve(queued.id).status == "cancelled"
    until(lambda: models.disconnects() > before)
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.responses.create(model="default", input="And?", previous_response_id=queued.id)


def test_a_budget_without_room_fails_it_and_says_so(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "Sixteen metres.", "usage": USAGE}]})
    before = len(models.requests())
    queued = client.responses.create(
        model="default", input="How high?", background=True, extra_body={"agentflow": {"budget": {"tokens": 5}}}
    )
    failed = ended(client, queued.id)
    assert failed.status == "failed" and failed.error is not None
    assert failed.error.code == "budget_exceeded" and "tokens" in failed.error.message
    assert len(models.requests()) == before, "nothing was sent"


def test_a_tenant_without_money_has_it_failed(
    api: Api, client: openai.OpenAI, models: ScriptedServer, folder: Path
) -> None:
    models.script({"small": [{"text": "Sixteen metres.", "usage": USAGE}]})
    before = len(models.requests())
    poor = key(folder, "poor", "--day-usd", "0.0000001")
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key=poor, max_retries=0) as other:
        failed = ended(other, other.responses.create(model="default", input="How high?", background=True).id)
    assert failed.status == "failed" and failed.error is not None and failed.error.code == "budget_exceeded"
    assert len(models.requests()) == before, "nothing was sent"


def test_a_model_that_fails_is_told(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"status": 400}]})
    failed = ended(client, client.responses.create(model="default", input="How high?", background=True).id)
    assert failed.status == "failed" and failed.error is not None and failed.error.code == "server_error"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="gpt-9", input="How high?", background=True)


def test_another_tenants_response_is_as_one_that_is_not_there(
    clients: Callable[[str], openai.OpenAI], client: openai.OpenAI, models: ScriptedServer
) -> None:
    models.script({"small": [{"text": "Sixteen metres.", "usage": USAGE}]})
    mine = [client.responses.create(model="default", input="How high?", background=b).id for b in (True, False)]
    ended(client, mine[0])
    other = clients("other")
    asks: list[Callable[[str], Any]] = [
        other.responses.retrieve, other.responses.delete, other.responses.cancel, other.responses.input_items.list,
        lambda id: other.responses.create(model="default", input="And?", previous_response_id=id),
    ]  # fmt: skip
    for ask in asks:
        said: set[str] = set()
        for id in (*mine, f"resp_{'0' * 48}"):
            with pytest.raises(openai.NotFoundError) as caught:
                ask(id)
            said.add(str(caught.value.response.json()).replace(id, "ID"))
        assert len(said) == 1, "which of them exist cannot be told"
    assert client.responses.retrieve(mine[0]).output_text == "Sixteen metres."


def test_deleting_one_deletes_its_job_and_every_reply(
    client: openai.OpenAI, models: ScriptedServer, folder: Path
) -> None:
    models.script({"small": [{"text": f"It is {SECRET}.", "usage": USAGE}]})
    queued = client.responses.create(model="default", input="Say it.", background=True)
    assert SECRET in ended(client, queued.id).output_text
    client.responses.delete(queued.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(queued.id)
    assert tables_with(folder, SECRET) == []
    models.script({"small": [{"text": "Late.", "gate": "never"}]})
    at_work = client.responses.create(model="default", input="Say it.", background=True)
    until(lambda: client.responses.retrieve(at_work.id).status == "in_progress")
    client.responses.delete(at_work.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(at_work.id)
    assert on_disk(folder), "there is a folder to look into"


def tables_with(folder: Path, text: str) -> list[str]:
    """Tables of all databases of a folder in which a text still stands, and files that hold it."""
    import sqlite3

    found: list[str] = []
    for path in sorted(folder.rglob("*.db")):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
            for name in names:
                rows = connection.execute(f'select * from "{name}"').fetchall()
                found += [f"{path.name}:{name}" for row in rows if text in str(row)]
    found += [str(p) for p in (folder / ".agentflow").rglob("*") if p.is_file() and ".db" not in p.name
              and text.encode() in p.read_bytes()]  # fmt: skip
    return found
