"""Each script in examples/ runs from start to end, and prints a result that makes sense."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# script -> (a number in its output, the least that it must be). For VGDCN on the digits: more than k-means has (0.792).
EXPECTED = {
    "cluster_array.py": (r"'ACC': ([\d.]+)", 0.8),
    "mini_batch.py": (r"batches of 256 +ACC ([\d.]+)", 0.8),
    "neighbors_in_sklearn.py": (r"spectral clustering .*ACC ([\d.]+)", 0.75),
    "new_samples.py": (r"new samples: .*\(([\d.]+)%\)", 80.0),
    "own_graph.py": (r"side that they took: ([\d.]+)%", 90.0),
    "swap_convolution.py": (r"arma\D+([\d.]+)", 0.8),
}


def run(script: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_example_is_forgotten() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*EXPECTED, "demo.py"}


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(EXPECTED))
def test_example_runs(script: str, tmp_path: Path) -> None:
    output = run(script, cwd=tmp_path)
    pattern, least = EXPECTED[script]
    found = re.search(pattern, output)
    assert found is not None, output
    assert float(found.group(1)) >= least, output
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind where it is run"


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    """What `make demo` shows: scores beside k-means, a picture that is one, a model that loads."""
    import graphclust

    output = run("demo.py", "--out", "result", cwd=tmp_path)
    rows = {
        name: [float(score) for score in re.findall(r"\d+\.\d+", line)]
        for line in output.splitlines()
        for name in ("VGDCN", "k-means")
        if re.match(rf"\W*{name}\b.*\d\.\d", line)
    }
    assert rows["VGDCN"][0] > rows["k-means"][0] > 50, output  # ACC in per cent
    picture = tmp_path / "result" / "overview.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000
    model = graphclust.load(tmp_path / "result" / "model")
    assert model.labels_.shape == (1797,)
