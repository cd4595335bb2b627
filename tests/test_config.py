from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agentflow import config
from agentflow.config import CascadeSettings, ModelSettings, Settings, example_config, load_settings
from agentflow.config.table import Table
from agentflow.errors import ConfigError

TWO_MODELS = """\
[models.small]
backend = "openai"
base_url = "http://127.0.0.1:8080/v1"

[models.large]
backend = "litellm"
model = "openai/gpt-4o-mini"
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "agentflow.toml"
    file.write_text(text, "utf-8")
    return file


def refusal(folder: Path, text: str) -> str:
    write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_with_nothing_configured_every_cascade_is_code_alone(here: Path) -> None:
    settings = load_settings()
    assert settings.models == {}
    assert settings.cascade("default").rungs == ("code",)
    assert settings.cascade("planner").rungs == ("code",)
    assert settings.budget.usd is settings.budget.joules is settings.budget.tokens is settings.budget.seconds is None
    assert settings.stores.runs == Path(".agentflow/runs")
    assert settings.telemetry.capture_content is False
    assert settings.sources.allow_private is False


def test_with_models_alone_the_default_cascade_is_code_and_then_they_in_the_order_of_the_file(here: Path) -> None:
    write(here, TWO_MODELS)
    assert load_settings().cascade("default").rungs == ("code", "small", "large")


def test_an_agents_own_cascade_comes_before_the_default_one(here: Path) -> None:
    write(
        here,
        TWO_MODELS + '[cascades.default]\nrungs = ["small"]\n[cascades.planner]\nrungs = ["large"]\naccept = 0.9\n',
    )
    settings = load_settings()
    assert settings.cascade("planner").rungs == ("large",)
    assert settings.cascade("planner").accept == 0.9
    assert settings.cascade("retrieval").rungs == ("small",)


def test_the_example_is_a_valid_configuration(here: Path) -> None:
    settings = load_settings(write(here, example_config()))
    assert settings.cascades["default"].rungs == ("code", "small", "large")
    assert settings.budget.usd == Decimal("0.25")
    assert settings.models["large"].api_key_env == "OPENAI_API_KEY"


def test_the_file_is_the_named_one_then_the_variables_then_the_working_folders(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, "[budget]\ntokens = 1\n")
    (here / "other.toml").write_text("[budget]\ntokens = 2\n")
    (here / "named.toml").write_text("[budget]\ntokens = 3\n")
    assert load_settings().budget.tokens == 1
    monkeypatch.setenv("AGENTFLOW_CONFIG", str(here / "other.toml"))
    assert load_settings().budget.tokens == 2
    assert load_settings(here / "named.toml").budget.tokens == 3


def test_a_variable_wins_over_the_file_and_leaves_the_rest_of_its_table(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, TWO_MODELS + "[budget]\nusd = 0.1\njoules = 50\n")
    monkeypatch.setenv("AGENTFLOW_BUDGET__USD", "0.5")
    monkeypatch.setenv("AGENTFLOW_MODELS__SMALL__BASE_URL", "http://10.0.0.5:8000/v1")
    monkeypatch.setenv("AGENTFLOW_CASCADES", '{"default": {"rungs": ["small"]}}')
    settings = load_settings()
    assert (settings.budget.usd, settings.budget.joules) == (Decimal("0.5"), 50.0)
    assert settings.models["small"].base_url == "http://10.0.0.5:8000/v1"
    assert settings.models["small"].backend == "openai"
    assert settings.cascade("default").rungs == ("small",)


def test_prices_are_exact_decimals(here: Path) -> None:
    write(here, TWO_MODELS.replace("[models.large]", "price = { input = 0.1, output = 0.3 }\n\n[models.large]"))
    price = load_settings().models["small"].price
    assert price is not None
    assert (price.input, price.output) == (Decimal("0.1"), Decimal("0.3"))


def test_a_byte_order_mark_is_no_fault(here: Path) -> None:
    write(here, "\ufeff[budget]\ntokens = 5\n")
    assert load_settings().budget.tokens == 5


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[budget]\nusd = 1\n[models.small\n", "line 3"),
        ("[budget]\nusd = \n", "line 2"),
        ("[budget]\nusd = 1\nusd = 2\n", "line 3"),
        ('[budget]\nusd = "', "line 2"),
        ("[budget]\nusd = 1\n[budget]\n", "line 3"),
    ],
)
def test_broken_toml_names_file_and_line(here: Path, text: str, place: str) -> None:
    message = refusal(here, text)
    assert message.startswith(f"agentflow.toml, {place}: not valid TOML")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[budget]\nusd = -1\n", "line 2: budget.usd: Input should be greater than 0"),
        ("[budget]\ntokens = 0\n", "line 2: budget.tokens: Input should be greater than 0"),
        ("[budget]\njoules = inf\n", "line 2: budget.joules: Input should be a finite number"),
        ("[budget]\nseconds = nan\n", "line 2: budget.seconds: Input should be"),
        ("[budget]\nusd = inf\n", "line 2: budget.usd: Input should be a finite number"),
        (
            "\n[budget]\n# a comment\neuros = 3\n",
            "line 4: budget.euros: there is no such key; there are: calls, grams_co2e, joules",
        ),
        ("[budgets]\nusd = 3\n", "line 1: budgets: there is no such key; there are: budget, cascades"),
        ("_env_prefix = 'x'\n", "line 1: _env_prefix: there is no such key"),
        (
            '[models.a]\nbackend = "vllm"\n',
            "line 2: models.a.backend: Input should be 'openai', 'llamacpp' or 'litellm'",
        ),
        ('[models.a]\nmodel = "x"\n', "line 1: models.a.backend: Field required"),
        ('[models.a]\nbackend = "openai"\n', "line 1: models.a: backend 'openai' needs base_url"),
        ('[models.a]\nbackend = "llamacpp"\n', "line 1: models.a: backend 'llamacpp' needs path"),
        ('[models.a]\nbackend = "litellm"\n', "line 1: models.a: backend 'litellm' needs model"),
        (
            f"{TWO_MODELS}price = {{ input = -1, output = 0 }}\n",
            "line 8: models.large.price.input: Input should be greater",
        ),
        (
            f"{TWO_MODELS}energy = {{ kind = 'fusion' }}\n",
            "line 8: models.large.energy.kind: Input should be 'cpu', 'gpu'",
        ),
        (f"{TWO_MODELS}[cascades.x]\nrungs = []\n", "line 9: cascades.x.rungs: "),
        (f"{TWO_MODELS}[cascades.x]\naccept = 2\n", "cascades.x."),
        (
            f'{TWO_MODELS}[cascades.x]\nrungs = ["code", "huge"]\n',
            "line 9: cascades.x.rungs: 'huge' is not a model; there are: code, small, large",
        ),
        (f'{TWO_MODELS}[cascades.x]\nrungs = ["small", "small"]\n', "line 9: cascades.x.rungs: names a rung twice"),
        ('[models.code]\nbackend = "litellm"\nmodel = "x"\n', "line 1: models.code: 'code' is the step's own code"),
        ('[research]\nembedder = { kind = "openai" }\n', "line 2: research.embedder: embedder 'openai' needs base_url"),
        ("[models.'gpt 4.1']\nbackend = 1\n", "line 2: models.gpt 4.1.backend: Input should be 'openai'"),
        (
            '[telemetry]\notel_compat = ["phoenix"]\n',
            "line 2: telemetry.otel_compat.0: Input should be 'openinference'",
        ),
        ("budget.usd = -1\n", "line 1: budget.usd: Input should be greater than 0"),
        ("[budget]\ntokens = 1.5\n", "line 2: budget.tokens: Input should be a valid integer"),
    ],
)
def test_a_wrong_value_names_file_line_key_and_what_is_allowed(here: Path, text: str, expected: str) -> None:
    message = refusal(here, text)
    assert message.startswith("agentflow.toml, line ")
    assert expected in message


def test_several_faults_are_counted(here: Path) -> None:
    assert refusal(here, "[budget]\nusd = -1\njoules = -2\n").endswith("(1 more to mend after it).")


def test_a_key_like_another_does_not_take_its_line(here: Path) -> None:
    text = TWO_MODELS + "max_output = 5\nmax_output_tokens = 7\n"
    assert "line 9: models.large.max_output_tokens" in refusal(here, text)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("AGENTFLOW_BUDGET__USD", "-1", "variable AGENTFLOW_BUDGET__USD: budget.usd: Input should be greater than 0"),
        ("AGENTFLOW_BUDGET__EUROS", "1", "variable AGENTFLOW_BUDGET__EUROS: budget.euros: there is no such key"),
        ("AGENTFLOW_BUDGTE__USD", "1", "variable AGENTFLOW_BUDGTE__USD: there is no table 'budgte'; there are: budget"),
        ("AGENTFLOW_CASCADES", "{not json", "variable AGENTFLOW_CASCADES: not valid JSON"),
        ("AGENTFLOW_BUDGET__TOKENS", "", "variable AGENTFLOW_BUDGET__TOKENS: budget.tokens: "),
    ],
)
def test_a_wrong_variable_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    write(here, "[budget]\nusd = 1\n")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"^variable ") as caught:
        load_settings()
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnopqrstuvwx",
        "gsk_abcdefghijklmnopqrstuvwx1234",
        "hf_abcdefghijklmnopqrstuvwx",
        "AIzaSyA1234567890abcdefghijklmn",
        "0123456789abcdef0123456789abcdef",
        "d3b07384d113edec49eaa6238ad5ff00",
        "Bearer abc",
    ],
)
def test_a_key_in_place_of_its_variables_name_is_refused_and_not_repeated(here: Path, secret: str) -> None:
    write(here, f'{TWO_MODELS}api_key_env = "{secret}"\n')
    with pytest.raises(ConfigError, match=r"line 8: models\.large\.api_key_env: must be the name") as caught:
        load_settings()
    assert secret not in str(caught.value)
    assert secret not in str(caught.value.__cause__)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "AZURE_KEY_EU_2", "MY_VERY_OWN_PROVIDERS_KEY_2026", "token"])
def test_names_of_variables_are_accepted(here: Path, name: str) -> None:
    write(here, f'{TWO_MODELS}api_key_env = "{name}"\n')
    assert load_settings().models["large"].api_key_env == name


def test_an_api_key_itself_has_no_place_and_is_not_repeated(here: Path) -> None:
    message = refusal(here, TWO_MODELS + 'api_key = "sk-secret"\n')
    assert "models.large.api_key: there is no such key" in message
    assert "api_key_env" in message
    assert "sk-secret" not in message


@pytest.mark.parametrize("address", ["http://me:hunter2@host/v1", "ftp://host/v1", "host:8080", "http://"])
def test_an_address_with_a_password_or_of_another_kind_is_refused(here: Path, address: str) -> None:
    message = refusal(here, f'[models.a]\nbackend = "openai"\nbase_url = "{address}"\n')
    assert "line 3: models.a.base_url: must be an http:// or https:// address" in message
    assert "hunter2" not in message


def test_a_file_that_is_missing_a_folder_or_not_text_is_told(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read: No such file"):
        load_settings(here / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_settings(here)
    (here / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.toml is not UTF-8 text \(byte 5\)"):
        load_settings(here / "latin.toml")
    (here / "deep.toml").write_text("x = " + "[" * 100_000)
    with pytest.raises(ConfigError, match=r"deep\.toml"):
        load_settings(here / "deep.toml")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200))
def test_whatever_the_file_holds_it_is_settings_or_a_told_fault(tmp_path: Path, text: str) -> None:
    file = tmp_path / "any.toml"
    file.write_text(text.encode("utf-8", "ignore").decode(), "utf-8")
    try:
        assert isinstance(load_settings(file), Settings)
    except ConfigError as error:
        assert str(file) in str(error)


def tables() -> list[type[BaseModel]]:
    return [t for t in vars(config).values() if isinstance(t, type) and issubclass(t, Table) and t is not Table]


@pytest.mark.parametrize("table", [Settings, *tables()])
def test_every_setting_says_what_it_is(table: type[BaseModel]) -> None:
    assert [name for name, field in table.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"backend": "litellm", "model": "openai/gpt-4o", "metrics": True}, "metrics: of backend 'openai' alone"),
        ({"backend": "openai", "base_url": "http://x/v1", "measure": True}, "measure: of backend 'llamacpp' alone"),
        ({"backend": "openai", "base_url": "http://x/v1", "hedge_share": 0.1}, "without hedge = true nothing is"),
        (
            {"backend": "openai", "base_url": "http://x/v1", "residency": ["eu"], "regions": {"a": {}}},
            "residency is said of each of its regions",
        ),
    ],
)
def test_a_models_setting_that_nothing_would_read_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ModelSettings.model_validate(table)


def test_a_policys_setting_that_nothing_would_read_is_refused() -> None:
    with pytest.raises(ValidationError, match="pinned: of policy 'pinned' alone, and it is 'fixed'"):
        CascadeSettings.model_validate({"rungs": ["small", "large"], "pinned": "large"})
