from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from agentflow.orchestration.library import agents_folder
from tests.conftest import PROJECT

FIND = (
    "from agentflow.orchestration.library import agents_folder, shipped_agents as s; print(agents_folder(), len(s()))"
)


def constraints() -> dict[str, str]:
    lines = (PROJECT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins), "exact versions and nothing else"
    return {canonicalize_name(name): version for name, version in pins}


def closure(name: str, extras: set[str], seen: dict[tuple[str, str], None]) -> set[str]:
    """Every distribution that an install of ``name`` brings along on this Python."""
    names: set[str] = set()
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in {"", *extras})
        key = (requirement.name, ",".join(sorted(requirement.extras)))
        if not wanted or key in seen:
            continue
        seen[key] = None
        names |= {canonicalize_name(requirement.name)} | closure(requirement.name, requirement.extras, seen)
    return names


def test_the_wheel_carries_the_agents_the_prices_and_the_page_and_finds_them(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(PROJECT)], check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("agentflow-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        packed.extractall(tmp_path / "installed")
    shipped = {path.name for path in (PROJECT / "agents").glob("*.md")}
    assert {name for name in names if name.startswith("agentflow/agents/")} == {
        f"agentflow/agents/{n}" for n in shipped
    }
    data = [
        p for p in (PROJECT / "agentflow").rglob("*") if p.suffix in {".toml", ".css", ".csv", ".j2", ".json", ".typed"}
    ]
    assert {path.relative_to(PROJECT).as_posix() for path in data} <= names
    assert not {name for name in names if name.startswith(("tests/", "benchmarks/"))}

    found = subprocess.run(
        [sys.executable, "-c", FIND],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.split() == [str(tmp_path / "installed" / "agentflow" / "agents"), str(len(shipped))]


def test_a_checkout_finds_the_agents_beside_the_package() -> None:
    assert agents_folder() == PROJECT / "agents"


def test_everything_that_run_and_test_install_is_pinned_to_what_is_installed() -> None:
    needed = closure("agentflow", {"dev"}, {}) - {"agentflow"}
    pins = constraints()
    assert needed - set(pins) == set()
    differing = {name for name in needed if metadata.version(name) != pins[name]}
    assert differing == set()


def test_what_the_server_and_gpu_extras_ask_for_is_pinned_too() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [Requirement(text) for extra in ("server", "gpu") for text in project["optional-dependencies"][extra]]
    pins = constraints()
    assert [r.name for r in asked if pins.get(canonicalize_name(r.name), "") not in r.specifier] == []


def test_no_file_of_the_set_up_names_a_download_address() -> None:
    for name in ("constraints.txt", "pyproject.toml", "Makefile", ".ci/run", ".pre-commit-config.yaml"):
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", (PROJECT / name).read_text("utf-8")), name


def test_the_command_is_the_one_that_the_package_declares() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"agentflow": "agentflow.cli.main:main"}
    assert metadata.version("agentflow") == project["version"]
