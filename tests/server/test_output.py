"""How results are written and verified, asked over HTTP: a real server, a real worker, a scripted model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentflow.research.report import Report
from tests.servers.api import Api, Background
from tests.servers.openai_server import ScriptedServer

QUESTION = "How high does the tide rise in the Bay of Fundy, and why?"
RISE = "The tide in the Bay of Fundy rises by 16 metres."
PULL = "The moon pulls the water of the bay and makes the tide rise twice a day."
TIDES = f"# Tides\n\n{RISE} It is the highest on Earth.\n\n{PULL}\n"
PLAN = {"json": {"sub_questions": [QUESTION]}}
DRAFT = {
    "json": {
        "answered": True,
        "claims": [
            {"text": text, "question": 1, "citations": [{"passage": 1, "quote": text}]} for text in (RISE, PULL)
        ],
    }
}
GERMAN = [
    "Die Flut in der Bay of Fundy steigt um 16 Meter.",
    "Der Mond zieht das Wasser der Bucht an und lässt die Flut zweimal am Tag steigen.",
]
SCHEMA = {
    "type": "object",
    "properties": {
        "place": {"type": "string"}, "rise_m": {"type": "number"}, "kind": {"enum": ["tide", "flood"]},
        "why": {"type": "string"}, "year": {"type": ["integer", "null"]},
    },
    "required": ["place", "rise_m", "kind"],
    "additionalProperties": False,
}  # fmt: skip
FILLED = {"place": "Bay of Fundy", "rise_m": 16, "kind": "flood", "why": PULL, "year": None}
NO_MODEL: dict[str, Any] = {"status": 400}


def judgement(verdict: str, words: str) -> dict[str, Any]:
    return {"json": {"verdict": verdict, "words": words, "reason": "The quote says twice, not once."}}


# A tight budget takes what code says of the question, so that the order of what is asked is not known.
JUDGES = {
    "by_prompt": {
        "Split the question": PLAN["json"], "Answer the question from": DRAFT["json"],
        f'"claim": "{RISE}"': judgement("states", "rises by 16 metres")["json"],
        f'"claim": "{PULL}"': judgement("states", "twice a day")["json"],
    }
}  # fmt: skip


@pytest.fixture
def http(api: Api, worker: Background) -> Iterator[httpx.Client]:
    with api.client() as client:
        yield client


@pytest.fixture
def tides(http: httpx.Client) -> str:
    made = http.post("/v1/collections", json={"name": "tides"}).json()["id"]
    http.post(f"/v1/collections/{made}/files", files={"file": ("tides.md", TIDES)})
    return made


class Asked:
    """A job that has ended, and what the model was asked for it."""

    def __init__(self, http: httpx.Client, models: ScriptedServer, tides: str, *steps: Any, **asked: Any) -> None:
        # What the smaller model cannot do, the larger one cannot either.
        small = [JUDGES] if JUDGES in steps else [PLAN, DRAFT, *steps]
        models.script({"small": small, "large": [NO_MODEL]})
        before = len(models.requests())
        accepted = http.post("/v1/research", json={"query": QUESTION, "sources": {"collections": [tides]}, **asked})
        assert accepted.status_code == 202, accepted.text
        self.http, self.urls = http, accepted.json()["urls"]
        found = http.get(self.urls["result"], params={"wait": 50})
        assert found.status_code == 200, found.text
        self.result = found.json()
        self.output = self.result["output"]
        self.prompts = [request["body"] for request in models.requests()[before:]]

    def get(self, name: str) -> Any:
        reply = self.http.get(self.urls[name])
        assert reply.status_code == 200, reply.text
        return reply.json() if "json" in reply.headers["content-type"] else reply.text

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.http.get(self.urls["events"], params={"cursor": 0, "limit": 1_000}).json()["data"]

    @property
    def steps(self) -> list[str]:
        return [e["data"]["task"] for e in self.events if e["kind"] == "task" and e["data"]["step"] == "ended"]


def test_whole_claims_are_left_out_and_stay_among_the_claims(
    http: httpx.Client, models: ScriptedServer, tides: str
) -> None:
    job = Asked(http, models, tides, output={"max_words": 15})
    assert [claim["text"] for claim in job.output["claims"]] == [RISE]
    assert [claim["text"] for claim in job.output["left_out"]] == [PULL]
    assert [claim["text"] for claim in job.get("claims")] == [RISE, PULL]
    assert "1 more claim stands and was left out to keep to 15 words" in job.get("report_md")
    assert PULL not in job.get("report_md").split("## Meter")[0]
    assert "at most 15 words" in job.prompts[1]["messages"][1]["content"]
    assert not job.result["partial"]
    assert any(event["data"].get("left_out") == 1 for event in job.events)

    longer = Asked(http, models, tides, output={"max_words": 3})
    assert [claim["text"] for claim in longer.output["claims"]] == [RISE], "it is neither broken nor withheld"
    assert "The first claim alone has 11 words, and 3 were asked for" in longer.get("report_md")


@pytest.mark.parametrize(
    ("style", "mark"), [("numbers", r"[\[1\]](#cite-1)"), ("footnotes", "[^1]\n"), ("links", "/tides.md:3)\n")]
)
def test_citations_are_written_in_the_style_that_was_asked_for(
    http: httpx.Client, models: ScriptedServer, tides: str, style: str, mark: str
) -> None:
    job = Asked(http, models, tides, output={"format": "text", "citations": style})
    assert mark in job.output
    assert job.output == job.get("report_md")
    page = job.get("report_html")
    assert {"numbers": 'class="mark"', "footnotes": 'id="note-1"', "links": 'class="link"'}[style] in page
    assert [claim["text"] for claim in job.get("claims")] == [RISE, PULL]
    assert job.get("spend")["meter"]["attempts"]


def test_claims_are_verified_in_their_own_language_and_then_translated(
    http: httpx.Client, models: ScriptedServer, tides: str
) -> None:
    wrong = {"json": {"claims": [GERMAN[0].replace("16", "17"), GERMAN[1]]}}
    job = Asked(http, models, tides, wrong, {"json": {"claims": GERMAN}}, output={"language": "de"})
    report = Report.model_validate(job.output)
    assert not job.result["partial"]
    assert [claim.text for claim in report.claims] == GERMAN
    assert [claim.original for claim in report.claims] == [RISE, PULL]
    assert [claim.citations[0].quote for claim in report.claims] == [RISE, PULL], "quotes stay as the source has them"
    assert report.language == "de"
    assert "lacks the number 16" in job.prompts[-1]["messages"][-1]["content"]
    assert job.steps[-2:] == ["synthesis", "translation"]
    assert 'lang="de"' in job.get("report_html")
    assert "then translated (de)" in job.get("report_md")
    assert "small" in report.rungs["translation"]


def test_claims_that_are_in_the_language_already_are_not_paid_for(
    http: httpx.Client, models: ScriptedServer, tides: str
) -> None:
    job = Asked(http, models, tides, NO_MODEL, output={"language": "en-GB"})
    assert len(job.prompts) == 2, "the plan and the claims"
    assert job.output["rungs"]["translation"] == "language detector (code)"
    assert not job.result["partial"]


def test_without_a_rung_that_can_translate_the_report_is_in_its_sources_language_and_says_so(
    http: httpx.Client, models: ScriptedServer, tides: str
) -> None:
    job = Asked(http, models, tides, NO_MODEL, output={"language": "de"})
    assert job.result["partial"]
    assert (job.result["status"], job.result["stop_reason"]) == ("completed", "error")
    assert job.output["ending"]["undone"] == ["translation"]
    assert [claim["text"] for claim in job.output["claims"]] == [RISE, PULL]
    assert job.output["language"] is None
    assert "Left undone: translation" in job.get("report_md")


def test_a_form_is_filled_from_verified_claims_and_each_leaf_names_them(
    http: httpx.Client, models: ScriptedServer, tides: str
) -> None:
    invented = {"json": {**FILLED, "year": 1984}}
    job = Asked(http, models, tides, invented, {"json": FILLED}, output={"json_schema": SCHEMA})
    assert job.output == FILLED
    assert job.result["basis"] == {"/place": ["c1"], "/rise_m": ["c1"], "/kind": [], "/why": ["c2"], "/year": []}
    assert not job.result["partial"]
    assert "1984" in job.prompts[-1]["messages"][-1]["content"], "it was told what it had invented"
    assert job.prompts[-1]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert {claim["id"]: claim["text"] for claim in job.get("claims")} == {"c1": RISE, "c2": PULL}
    assert RISE in job.get("report_md")
    assert job.get("spend")["meter"]["total"]["calls"] > 0
    assert job.steps[-1] == "shaping"


@pytest.mark.parametrize(
    "reply",
    [{"json": {**FILLED, "rise_m": 17}}, {"json": {"place": "Bay of Fundy"}}, {"text": "I cannot."}, NO_MODEL],
    ids=["invented", "missing", "prose", "away"],
)
def test_a_form_that_cannot_be_filled_gives_the_report_and_the_reason(
    http: httpx.Client, models: ScriptedServer, tides: str, reply: dict[str, Any]
) -> None:
    job = Asked(http, models, tides, reply, output={"json_schema": SCHEMA})
    report = Report.model_validate(job.output)
    assert job.result["partial"]
    assert job.result["basis"] is None
    assert report.data is None
    assert report.ending is not None
    assert report.ending.undone == ("shaping",)
    assert [claim.text for claim in report.claims] == [RISE, PULL]


def test_a_judge_lets_claims_stand_or_moves_them_to_the_unsupported(
    http: httpx.Client, models: ScriptedServer, tides: str
) -> None:
    steps = (judgement("states", "eleven metres"), judgement("states", "rises by 16 metres"),
             judgement("contradicts", "twice a day"))  # fmt: skip
    job = Asked(http, models, tides, *steps, verify="judged")
    (claim,) = job.output["claims"]
    assert (claim["text"], claim["judged"]) == (RISE, True)
    (refused,) = job.output["unsupported"]
    assert refused["text"] == PULL
    assert "contradict it: The quote says twice" in refused["reason"]
    assert len(job.prompts) == 5, "words that the quote does not have are sent back"
    told = [event["data"] for event in job.events if event["kind"] == "claim"]
    assert [(claim["text"], claim["supported"]) for claim in told if claim.get("judged")] == [
        (RISE, True), (PULL, False),
    ]  # fmt: skip
    assert not job.result["partial"]
    assert job.steps[-1] == "verification"


def test_a_budget_that_ends_before_all_are_judged_leaves_the_others_marked(
    http: httpx.Client, models: ScriptedServer, tides: str
) -> None:
    job = Asked(http, models, tides, JUDGES, verify="judged", budget={"calls": 6})
    assert (job.result["partial"], job.result["stop_reason"]) == (True, "budget_reached")
    assert [claim["judged"] for claim in job.output["claims"]] == [True, False]
    assert job.output["ending"]["undone"] == ["verification"]
    assert "1 of 2 claims were not judged" in job.get("report_md")
    assert job.get("spend")["spend"]["calls"] <= 6


def test_a_job_that_is_stopped_while_it_judges_keeps_what_was_judged(
    http: httpx.Client, models: ScriptedServer, tides: str
) -> None:
    before = len(models.requests())
    models.script({"small": [PLAN, DRAFT, judgement("states", "rises by 16 metres"), {"gate": "judging"}]})
    asked = {"query": QUESTION, "sources": {"collections": [tides]}, "verify": "judged", "output": {"language": "de"}}
    urls = http.post("/v1/research", json=asked).json()["urls"]
    while len(models.requests()) < before + 4:
        http.get(urls["result"], params={"wait": 0.2})
    http.post(f"{urls['self']}/stop")
    found = http.get(urls["result"], params={"wait": 50}).json()
    models.release("judging")
    assert (found["partial"], found["stop_reason"]) == (True, "stopped")
    assert [claim["judged"] for claim in found["output"]["claims"]] == [True, False]
    assert found["output"]["ending"]["undone"] == ["verification", "translation"]


def test_a_job_that_waits_for_budget_goes_on_where_its_judge_was(
    http: httpx.Client, models: ScriptedServer, tides: str
) -> None:
    before = len(models.requests())
    job = Asked(http, models, tides, JUDGES, verify="judged", budget={"calls": 6, "on_limit": "pause"})
    assert job.result["status"] == "paused_budget"
    assert [claim["judged"] for claim in job.output["claims"]] == [True, False]
    http.post(f"{job.urls['self']}/budget", json={"calls": 40})
    http.post(f"{job.urls['self']}/resume")
    while http.get(job.urls["self"]).json()["status"] != "completed":
        http.get(job.urls["result"], params={"wait": 1})
    found = http.get(job.urls["result"]).json()
    assert [claim["judged"] for claim in found["output"]["claims"]] == [True, True]
    assert not found["partial"]
    prompts = [request["body"]["messages"][1]["content"] for request in models.requests()[before:]]
    assert [sum(f'"claim": "{claim}"' in prompt for prompt in prompts) for claim in (RISE, PULL)] == [1, 1]
    assert sum("Split the question" in prompt for prompt in prompts) == 1, "what was answered is not asked again"


def test_all_together_judged_then_translated_then_shaped_then_cut(
    http: httpx.Client, models: ScriptedServer, tides: str
) -> None:
    steps = (judgement("states", "rises by 16 metres"), judgement("states", "twice a day"),
             {"json": {"claims": GERMAN}}, {"json": {"place": "Bay of Fundy", "rise_m": 16, "kind": "flood",
                                                     "why": GERMAN[1]}})  # fmt: skip
    output = {"language": "de", "json_schema": SCHEMA, "max_words": 12}
    job = Asked(http, models, tides, *steps, verify="judged", output=output)
    assert job.result["basis"]["/why"] == ["c2"]
    assert job.steps[-3:] == ["verification", "translation", "shaping"]
    assert [claim["text"] for claim in job.get("claims")] == GERMAN
    assert "1 more claim stands" in job.get("report_md")


def test_a_worker_dies_while_it_translates_and_no_finished_call_is_made_again(
    http: httpx.Client, models: ScriptedServer, tides: str, folder: Path, worker: Background
) -> None:
    models.script({"small": [
        PLAN, DRAFT, judgement("states", "rises by 16 metres"), judgement("states", "twice a day"),
        {"json": {"claims": GERMAN}, "gate": "translating"}, {"json": {"claims": GERMAN}},
    ]})  # fmt: skip
    before = len(models.requests())
    asked = {"query": QUESTION, "sources": {"collections": [tides]}, "verify": "judged", "output": {"language": "de"}}
    urls = http.post("/v1/research", json=asked).json()["urls"]
    while len(models.requests()) < before + 5:
        http.get(urls["result"], params={"wait": 0.2})
    worker.kill()
    other = Background(folder, "worker")
    try:
        found = http.get(urls["result"], params={"wait": 50}).json()
        assert found["status"] == "completed"
        assert not found["partial"]
        assert [claim["text"] for claim in found["output"]["claims"]] == GERMAN
        assert [claim["judged"] for claim in found["output"]["claims"]] == [True, True]
        assert len(models.requests()) == before + 6, "only the translation was asked for again"
    finally:
        models.release("translating")
        other.kill()
