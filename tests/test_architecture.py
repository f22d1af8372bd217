"""The rooms of the house, read from the source: who may import whom, where training happens, who sees labels."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import graphclust

PACKAGE = Path(graphclust.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# What each room may import of the package. Names that begin with "_" are shared helpers at the very bottom.
BOTTOM = {"metrics", "datasets"}
MAY_IMPORT: dict[str, set[str]] = {
    "metrics": set(),
    "datasets": set(),
    "graph": set(),
    "images": set(),  # stands beside graph
    "results": {"graph", "images", "nn", "training", "methods", "report", *BOTTOM},
    "nn": {"graph"},
    "training": {"graph", "nn"},
    "methods": {"graph", "images", "nn", "training", "metrics"},
    "report": {"graph", "nn", "training", "methods", *BOTTOM},
    "comparison": {"graph", "images", "nn", "training", "methods", "report", *BOTTOM},
    # reached by name alone, when engine="ray" is asked for
    "distributed": {"graph", "images", "nn", "training", "methods"},
    "clustering": {"graph", "images", "nn", "methods", *BOTTOM},
    "cli": {
        "graph",
        "images",
        "results",
        "nn",
        "training",
        "methods",
        "report",
        "comparison",
        "clustering",
        *BOTTOM,
    },
    "__main__": {"cli"},
}
MAX_LINES = 450


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of each import of the package's own modules, inside functions and TYPE_CHECKING too."""
    package = ("graphclust", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = list(package[: len(package) - node.level + 1]) if node.level else []
            start += node.module.split(".") if node.module else []
            # "from graphclust import nn" names a room, and so does "from . import nn" at the top.
            targets = [[*start, alias.name] for alias in node.names] if len(start) == 1 else [start]
        else:
            continue
        for target in targets:
            if target[0] != "graphclust" or len(target) == 1:
                continue
            yield node.lineno, graphclust._EXPORTS.get(target[1], f"graphclust.{target[1]}").split(".")[1]


def rooms() -> list[Path]:
    return [path for path in SOURCES if path != PACKAGE / "__init__.py"]


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(PACKAGE.parent)}:{line}"


def test_every_room_has_a_place() -> None:
    unknown = {room_of(path) for path in rooms()} - set(MAY_IMPORT)
    assert not {room for room in unknown if not room.startswith("_")}


def test_rooms_import_only_what_stands_before_them() -> None:
    seen, wrong = 0, []
    for path in rooms():
        room = room_of(path)
        allowed = MAY_IMPORT.get(room, set()) | {room}
        for line, target in imported_rooms(path):
            seen += 1
            if not (target in allowed or target.startswith("_")):
                wrong.append(f"{where(path, line)}: {room} imports {target}")
    assert seen > 10  # the walk found the package's imports at all
    assert not wrong, "\n".join(wrong)


def test_helpers_at_the_bottom_import_no_room() -> None:
    helpers = [path for path in rooms() if room_of(path).startswith("_") and path.name != "__main__.py"]
    assert helpers
    for path in helpers:
        assert not [target for _, target in imported_rooms(path) if not target.startswith("_")], path


def test_training_loops_live_in_the_training_room() -> None:
    """`backward` and an optimizer's `step` belong to the one loop."""
    loops: dict[str, list[str]] = {"inside": [], "outside": []}
    for path in rooms():
        for node in ast.walk(tree_of(path)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "backward"
            ):
                place = "inside" if room_of(path) == "training" else "outside"
                loops[place].append(where(path, node.lineno))
    assert not loops["outside"]
    assert len(loops["inside"]) == 1, "one training loop for all"


def test_true_labels_are_read_by_scores_and_reports_alone() -> None:
    """No room that learns reads a true label: neither by name, nor `y` of `fit`, nor a score that compares with it."""
    files = sorted((PACKAGE / "metrics").glob("*.py"))
    scores = {name for path in files for name in functions_with_parameter(path, "y_true")}
    assert {"clustering_accuracy", "calibration_error"} <= scores
    wrong = []
    for path in rooms():
        if room_of(path) not in {"graph", "nn", "training", "methods"}:
            continue
        tree = tree_of(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                wrong += [f"{where(path, node.lineno)}: {a.name}" for a in node.names if a.name in scores]
            elif isinstance(node, ast.Attribute) and node.attr in scores:
                wrong.append(f"{where(path, node.lineno)}: .{node.attr}")
            elif isinstance(node, ast.Name) and node.id in {"y_true", "labels_true", "true_labels"}:
                wrong.append(f"{where(path, node.lineno)}: {node.id}")
        if room_of(path) != "graph":  # the graph carries a Data's own y, unread
            wrong += [f"{where(path, line)}: y is read" for line in lines_that_read_y(tree)]
    assert not wrong, "\n".join(wrong)


def functions_with_parameter(path: Path, parameter: str) -> set[str]:
    return {
        node.name
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef) and parameter in {arg.arg for arg in node.args.args}
    }


def lines_that_read_y(tree: ast.Module) -> list[int]:
    """Lines of functions with a parameter `y` that do anything with it but pass it on to another `fit`."""
    lines = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or "y" not in {arg.arg for arg in function.args.args}:
            continue
        if not function.name.startswith(("fit", "score")):
            continue
        passed_on = {
            id(argument)
            for call in ast.walk(function)
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr.startswith("fit")
            for argument in [*call.args, *(keyword.value for keyword in call.keywords)]
        }
        lines += [
            node.lineno
            for node in ast.walk(function)
            if isinstance(node, ast.Name)
            and node.id == "y"
            and isinstance(node.ctx, ast.Load)
            and id(node) not in passed_on
        ]
    return lines


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("class A:\n    def fit(self, X, y=None):\n        return self.learn(X)", []),
        ("class A:\n    def fit_predict(self, X, y=None):\n        return self.fit(X, y).labels_", []),
        ("class A:\n    def fit(self, X, y=None):\n        return self.learn(X, y)", [3]),
        ("class A:\n    def fit(self, X, y=None):\n        self.best_ = (self.labels_ == y).mean()", [3]),
    ],
)
def test_the_check_on_y_sees_what_it_should(source: str, lines: list[int]) -> None:
    assert lines_that_read_y(ast.parse(source)) == lines


def test_global_random_state_is_left_alone() -> None:
    """A file may seed torch's generator if it also puts it back (`fork_rng`); NumPy's and Python's never."""
    wrong = []
    for path in rooms():
        tree = tree_of(path)
        called = [
            (node.lineno, ast.unparse(node.func)) for node in ast.walk(tree) if isinstance(node, ast.Call)
        ]
        restores = any(name.endswith("fork_rng") for _, name in called)
        forbidden = {"random.seed", "np.random.seed", "torch.seed", "torch.cuda.manual_seed_all"}
        if not restores:
            forbidden |= {"torch.manual_seed", "torch.random.manual_seed"}
        wrong += [f"{where(path, line)}: {name}" for line, name in called if name in forbidden]
    assert not wrong, "\n".join(wrong)


def test_a_file_is_one_concept() -> None:
    long = {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES
    }
    assert not {name: lines for name, lines in long.items() if lines > MAX_LINES}


@pytest.mark.parametrize("module", ["graphclust", "graphclust.cli", "graphclust.metrics"])
def test_importing_is_light(module: str) -> None:
    """`import graphclust` and `graphclust --help` do not wait for torch, faiss or matplotlib."""
    heavy = {"torch", "torch_geometric", "faiss", "matplotlib", "lightning_fabric", "pandas", "ray"}
    code = f"import sys, {module}; print(*sorted(sys.modules.keys() & {heavy!r}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_no_network_at_import() -> None:
    """With every connection refused, all of the package can be imported."""
    modules = [".".join(("graphclust", *p.relative_to(PACKAGE).with_suffix("").parts)) for p in rooms()]
    modules = [name.removesuffix(".__init__") for name in modules if not name.endswith("__main__")]
    code = (
        "import socket, importlib\n"
        "def refuse(*a, **k): raise OSError('the network was used at import')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
