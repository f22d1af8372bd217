import io
import time

import pytest
import torch
from rich.console import Console
from torch import nn

from graphclust.graph import SampleGraph
from graphclust.training import BatchSource, Stage, Step, Trainer
from graphclust.training.progress import TrainingProgress

RECORD = {
    "stage": "graph branch [2]",
    "epoch": 3,
    "loss": 123.456789,
    "reconstruction": 120.0,
    "prior": 3.4,
    "kl": 0.056789,
    "changed": 0.25,
    "skipped": None,
    "learning_rate": 0.001,
    "seconds": 1.0,
}


def show(progress, records, epochs=9):
    with progress:
        progress.start_stage("graph branch [2]", epochs, 0)
        for record in records:
            progress.epoch(record, epochs, last=record["epoch"] == epochs)


def test_a_line_each_without_a_terminal(capsys):
    show(TrainingProgress(True, seconds_between_lines=0.0), [RECORD, RECORD | {"epoch": 9}])
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2  # however long a line is
    assert lines[0].startswith("graph branch [2]") and "epoch    3/9" in lines[0]
    assert lines[0].endswith("loss 123.5  reconstruction 120  prior 3.4  kl 0.05679  changed 0.25")
    assert "epoch    9/9" in lines[1]


def test_lines_come_now_and_then_and_at_the_end(capsys):
    records = [RECORD | {"epoch": e} for e in range(1, 10)]
    show(TrainingProgress(True, seconds_between_lines=1000.0), records)
    lines = capsys.readouterr().err.splitlines()
    assert ["epoch    1/9" in lines[0], "epoch    9/9" in lines[1], len(lines)] == [True, True, 2]


def test_nothing_when_disabled(capsys):
    show(TrainingProgress(False, seconds_between_lines=0.0), [RECORD, RECORD | {"epoch": 9}])
    assert capsys.readouterr() == ("", "")


def test_a_live_bar_on_a_terminal(monkeypatch):
    screen = io.StringIO()

    def terminal(**keywords):
        return Console(file=screen, force_terminal=True, width=140, quiet=keywords["quiet"])

    monkeypatch.setattr("graphclust.training.progress.Console", terminal)
    progress = TrainingProgress(True)
    assert progress.live
    with progress:
        progress.start_stage("clustering", 9, 2)
        progress.epoch(RECORD, 9, last=False)
        time.sleep(0.15)
        progress.epoch(RECORD | {"epoch": 5}, 9, last=True)  # an early stop fills the bar
        task = progress._bar.tasks[0]
        assert (task.completed, task.total, task.finished) == (5, 5, True)
    shown = screen.getvalue()
    assert "clustering" in shown and "loss 123.5" in shown and "5/5" in shown


@pytest.mark.parametrize("verbose", [True, False])
def test_training_prints_where_asked(capsys, verbose):
    graph = SampleGraph.from_edges(torch.empty(2, 0, dtype=torch.int64), torch.zeros(4, 1))
    stage = Stage("short", lambda m, b: Step({"term": m(b.x).square().mean()}), 3)
    Trainer(device="cpu", verbose=verbose).fit(nn.Linear(1, 1), [stage], BatchSource(graph))
    out, err = capsys.readouterr()
    assert out == ""
    assert ("short" in err and "epoch    3/3" in err and "term" in err) if verbose else err == ""
