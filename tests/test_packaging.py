"""What a newcomer meets first: the package's metadata, its lazy names, the pinned versions, the README's links."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points, metadata, requires
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import graphclust

ROOT = Path(__file__).parents[1]


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def declared() -> list[Requirement]:
    """Requirements of the package and its extras, as they are installed."""
    found = requires("graphclust")
    assert found
    return [Requirement(line) for line in found]


def test_version_is_the_installed_one() -> None:
    assert metadata("graphclust")["Version"] == graphclust.__version__


def test_extras_are_there() -> None:
    extras = set(metadata("graphclust").get_all("Provides-Extra") or [])
    assert {"cpu", "gpu", "sampling", "dev"} <= extras
    of_extra = {
        extra: {r.name for r in declared() if r.marker is not None and f'"{extra}"' in str(r.marker)}
        for extra in extras
    }
    assert of_extra["cpu"] == {"faiss-cpu"}
    assert of_extra["gpu"] == {"faiss-gpu"}
    assert of_extra["sampling"] == {"torch-cluster"}
    plain = {r.name for r in declared() if r.marker is None or "extra" not in str(r.marker)}
    assert not plain & {"faiss-cpu", "faiss-gpu", "torch-cluster", "torch-sparse", "pyg-lib"}


def test_torch_is_pinned_first() -> None:
    assert constraints()[0].name == "torch"


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_pins_are_inside_the_declared_ranges(python: str) -> None:
    """On each Python there is one pin for whatever the package or its tools ask for, and it is an allowed version."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    pins: dict[str, str] = {}
    for pin in constraints():
        if pin.marker is None or pin.marker.evaluate({**environment, "extra": ""}):
            assert canonicalize_name(pin.name) not in pins, f"{pin.name} is pinned twice on Python {python}"
            pins[canonicalize_name(pin.name)] = next(iter(pin.specifier)).version
    for requirement in declared():
        if requirement.name == "torch-cluster":
            continue  # built from source on the machine that wants it
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{requirement} excludes the pinned {pins[name]}"


def test_script_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="graphclust")
    assert script.value == "graphclust.cli:main"


def test_lazy_names_resolve_and_are_listed() -> None:
    for name in graphclust.__all__:
        assert getattr(graphclust, name) is not None
        assert name in dir(graphclust)
    assert graphclust.SampleGraph is graphclust.graph.SampleGraph
    with pytest.raises(AttributeError, match="no attribute 'Cluster'.*VGDCN"):
        attrgetter("Cluster")(graphclust)
    code = "from graphclust import *; print(SampleGraph.__name__, VGDCN.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["SampleGraph", "VGDCN"]


def test_type_checkers_see_the_lazy_names() -> None:
    """The imports under TYPE_CHECKING, which mypy and editors read, name what is exported at run time."""
    source = (Path(graphclust.__file__)).read_text(encoding="utf-8")
    typed = source.split("if TYPE_CHECKING:")[1].split("_ROOMS")[0]
    for name in (*graphclust._EXPORTS, *graphclust._ROOMS):
        assert re.search(rf"\b{name}\b", typed), f"{name} is not imported under TYPE_CHECKING"
    assert set(graphclust.__all__) == {*graphclust._EXPORTS, *graphclust._ROOMS, "__version__"}


@pytest.mark.slow
def test_wheel_holds_the_package(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="needs the extra dev: pip install '.[dev]'")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("graphclust-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "graphclust").rglob("*.py")}
    assert sources <= names
    assert "graphclust/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "examples/", "benchmarks/"))]


def test_make_has_the_targets_that_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"install", "demo", "test"} <= named <= targets
    # Each of these sets itself up.
    for target in ("demo", "test", "lint"):
        assert re.search(rf"^{target}: \$\(STAMP\)", makefile, flags=re.MULTILINE)


def test_ci_runs_the_readme_commands() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    commands = re.findall(r"^timed make (\w+)$", text, flags=re.MULTILINE)
    assert commands == ["install", "lint", "test", "demo"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/vgdcn.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [
        link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()
    ]
    assert not missing


@pytest.mark.slow
def test_readme_code_runs(tmp_path: Path) -> None:
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert len(blocks) == 4
    rng = np.random.default_rng(0)
    for folder, n_images in (("photos", 12), ("more", 2)):
        (tmp_path / folder).mkdir()
        for n in range(n_images):
            pixels = rng.integers(0, 60, (12, 12), dtype=np.uint8)
            pixels[:, 6 * (n % 2) :][:, :6] += 150
            Image.fromarray(pixels).save(tmp_path / folder / f"{n}.png")
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "digits-model").is_dir()
    assert (tmp_path / "result" / "report.html").is_file()
