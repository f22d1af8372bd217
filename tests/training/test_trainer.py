import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from graphclust import VGDCN
from graphclust.graph import SampleGraph
from graphclust.training import BatchSource, Stage, Step, Trainer, choose_device, choose_precision, trainer
from graphclust.training.checkpoint import read_checkpoint


def build(graph, seed=0):
    """A classifier with dropout whose second stage follows labels that the first one left in memory."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        model = nn.Sequential(
            nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Dropout(0.3), nn.ReLU(), nn.Linear(12, 4)
        )
    source = BatchSource(graph, num_neighbors=[3, 2], seed=seed)
    memory = {}

    def squares(m, batch):
        out = m(batch.x[: batch.size])
        return Step(
            {"fit": (out - batch.x[: batch.size, 20:24]).square().mean(), "size": 1e-3 * out.square().mean()}
        )

    def start():
        noise = torch.rand(source.n_samples)  # the seeded global generator of the stage
        with torch.no_grad():
            memory["labels"] = model(source.x).argmax(dim=1)
        memory["noise"] = noise

    def follow(m, batch):
        x = batch.adjacency.propagate(batch.x)
        logits = m(x)[: batch.size]
        loss = nn.functional.cross_entropy(logits, memory["labels"][batch.index])
        return Step({"follow": loss + 0.01 * memory["noise"][batch.index].mean()}, logits)

    stages = [
        Stage("squares", squares, 3, 1e-2, batch_size=40),
        Stage("nothing", squares, 0),
        Stage(
            "sampled", follow, 4, 1e-2, decay=0.5, decay_every=2, batch_size=50, uses_graph=True, start=start
        ),
        Stage("full", follow, 3, 1e-3, uses_graph=True, parameters=lambda m: m[4].parameters()),
    ]
    return model, stages, source, memory


@pytest.fixture(scope="module")
def graph(digits):
    return SampleGraph.from_features(digits[0][:120], 4)


def run(graph, *, seed=0, break_at=None, **trainer):
    model, stages, source, memory = build(graph, seed)
    if break_at is not None:
        for stage in stages:
            stage.loss = _broken(stage.loss, break_at)
    history = Trainer(seed=seed, device="cpu", **trainer).fit(model, stages, source, memory=memory)
    return model.state_dict(), history, memory


class Killed(Exception):
    pass


def _broken(loss, countdown):
    """`countdown` is one list that all stages share: steps that are left before the run dies."""

    def wrapped(model, batch):
        countdown[0] -= 1
        if countdown[0] < 0:
            raise Killed
        return loss(model, batch)

    return wrapped


def without_seconds(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


def assert_same(a, b):
    assert without_seconds(a[1]) == without_seconds(b[1])
    for mine, other in [(a[0], b[0]), (a[2], b[2])]:
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.fixture(scope="module")
def unbroken(graph):
    return run(graph)


def test_history_tells_what_happened(unbroken):
    history = unbroken[1]
    assert [r["stage"] for r in history] == ["squares"] * 3 + ["sampled"] * 4 + ["full"] * 3
    assert [r["epoch"] for r in history] == [1, 2, 3, 1, 2, 3, 4, 1, 2, 3]
    assert [r["learning_rate"] for r in history[3:7]] == [1e-2, 1e-2, 5e-3, 5e-3]
    for record in history[:3]:
        assert record["loss"] == pytest.approx(record["fit"] + record["size"], rel=1e-5)
        assert "changed" not in record
    assert history[2]["fit"] < history[0]["fit"]
    assert history[3]["changed"] == 1.0 and all(0 <= r["changed"] <= 1 for r in history[4:7])
    assert all(r["seconds"] > 0 for r in history)


def test_one_seed_one_result(graph, unbroken):
    assert_same(run(graph), unbroken)
    other = run(graph, seed=1)
    assert not torch.equal(other[0]["0.weight"], unbroken[0]["0.weight"])


def test_global_generators_are_left_alone(graph, monkeypatch):
    monkeypatch.setattr(
        torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a run on the CPU seeded CUDA devices")
    )
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    run(graph)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "one-cycle"}, None),
        ({"warm_up": 4, "decay": 0.5, "decay_every": 1}, [0.25, 0.5, 0.75, 0.5, 0.5, 0.5]),
    ],
)
def test_the_rate_changes_from_step_to_step(options, expected, graph, monkeypatch):
    rates = []

    class Recording(torch.optim.AdamW):
        def step(self, *args, **options):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*args, **options)

    monkeypatch.setattr(torch.optim, "AdamW", Recording)
    model, stages, source, memory = build(graph)
    stage = replace(stages[0], epochs=2, **options)  # 120 samples by 40
    Trainer(device="cpu").fit(model, [stage], source, memory=memory)
    if expected is None:
        assert rates == pytest.approx([stage.rate(step / 3) for step in range(6)])
        assert len(set(rates)) == 6
    else:
        assert rates == pytest.approx([stage.learning_rate * factor for factor in expected])


def test_trainings_in_threads_do_not_draw_each_others_numbers(digits):
    """Each ends as it would alone, and the global generators are as they were."""
    seeds = [0, 1, 0]
    kwargs = {"hidden_channels": (32,), "latent_dim": 4, "pretrain_epochs": 4, "epochs": 4}
    x = digits[0][:300]

    def fit(seed):
        return VGDCN(4, random_state=seed, **kwargs).fit(x)

    alone = {seed: fit(seed) for seed in set(seeds)}
    before = torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(fit, seeds))
    assert torch.equal(torch.get_rng_state(), before)
    for seed, model in zip(seeds, together, strict=True):
        np.testing.assert_array_equal(model.probabilities_, alone[seed].probabilities_)


def test_result_does_not_depend_on_the_global_generator(graph, unbroken):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(99)
        assert_same(run(graph), unbroken)


def test_parameters_outside_of_a_stage_stay(graph):
    model, stages, source, memory = build(graph)
    memory["labels"], memory["noise"] = torch.arange(120) % 4, torch.zeros(120)
    before = {name: value.clone() for name, value in model.named_parameters()}
    Trainer(device="cpu").fit(model, stages[3:], source, memory=memory)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"4.weight", "4.bias"}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_average_of_the_losses_is_over_samples(precision):
    """120 samples in batches of 50, 50 and 20: each counts the same; features are not rounded to bfloat16."""
    x = torch.arange(120.0)[:, None]
    graph = SampleGraph.from_edges(torch.empty(2, 0, dtype=torch.int64), x)
    model = nn.Linear(1, 1)
    stage = Stage(
        "mean", lambda m, b: Step({"x": b.x.mean() + 0 * m.weight.sum()}), 1, batch_size=50, weight_decay=0.0
    )
    history = Trainer(device="cpu", precision=precision).fit(model, [stage], BatchSource(graph))
    assert history[0]["loss"] == pytest.approx(59.5, rel=1e-5)


# -- resume --------------------------------------------------------------------------------------------------------


STEPS = 3 * 3 + 4 * 3 + 3  # of the three stages


@pytest.mark.parametrize("every", [1, 2])
def test_killed_anywhere_and_resumed_ends_like_the_unbroken_run(graph, unbroken, tmp_path, every):
    for step in range(0, STEPS, 1 if every == 1 else 4):
        folder = tmp_path / f"{step}"
        with pytest.raises(Killed):
            run(graph, checkpoint=folder, checkpoint_every=every, break_at=[step])
        assert_same(run(graph, checkpoint=folder, checkpoint_every=every), unbroken)


def test_long_epochs_are_saved_before_the_tenth(graph, unbroken, tmp_path, monkeypatch):
    monkeypatch.setattr("graphclust.training.trainer._CHECKPOINT_AFTER", 0.0)
    with pytest.raises(Killed):
        run(graph, checkpoint=tmp_path, break_at=[7])  # in the third epoch of the first stage
    assert read_checkpoint(tmp_path)[1]["epoch"] == 2
    assert_same(run(graph, checkpoint=tmp_path), unbroken)


def test_killed_again_and_again(graph, unbroken, tmp_path):
    for _ in range(STEPS):
        try:
            result = run(graph, checkpoint=tmp_path, checkpoint_every=1, break_at=[4])
            break
        except Killed:
            continue
    assert_same(result, unbroken)


def test_finished_run_is_only_read(graph, unbroken, tmp_path):
    first = run(graph, checkpoint=tmp_path)
    again = run(graph, checkpoint=tmp_path, break_at=[0])  # a single step would raise
    assert_same(again, unbroken)
    assert again[1] == first[1]  # with the seconds of the first run


def test_process_killed_in_the_middle(digits, graph, unbroken, tmp_path):
    np.save(tmp_path / "x.npy", digits[0][:120])
    script = tmp_path / "train.py"
    script.write_text(
        f"""
import runpy, time
import numpy as np
from graphclust.graph import SampleGraph
from graphclust.training import Trainer

graph = SampleGraph.from_features(np.load({str(tmp_path / "x.npy")!r}), 4)
model, stages, source, memory = runpy.run_path({__file__!r})["build"](graph)

def slow(loss):
    def wrapped(m, batch):
        time.sleep(0.2)  # in all some five seconds: the kill comes long before the end
        return loss(m, batch)
    return wrapped

for stage in stages:
    stage.loss = slow(stage.loss)
trainer = Trainer(seed=0, device="cpu", checkpoint={str(tmp_path / "run")!r}, checkpoint_every=1)
trainer.fit(model, stages, source, memory=memory)
print("finished")
"""
    )
    package = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE)
    file = tmp_path / "run" / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not file.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.9)  # some way on, perhaps into the next epoch
    process.kill()
    output, _ = process.communicate()
    assert process.returncode != 0 and b"finished" not in output
    assert file.exists()
    resumed = run(graph, checkpoint=tmp_path / "run", checkpoint_every=1)
    assert_same(resumed, unbroken)
    assert not list((tmp_path / "run").glob("*.partial*"))  # what the killed run may have left half written


def test_a_checkpoint_of_another_run_is_refused_and_remains(graph, tmp_path):
    def fit(fingerprint, model=None):
        built, stages, source, memory = build(graph)
        trainer = Trainer(device="cpu", checkpoint=tmp_path)
        return trainer.fit(
            model or built, stages[:1], source, memory=memory, fingerprint=fingerprint
        ), trainer

    fingerprint = {"widths": (4, 2), "seed": 3, "nothing": float("nan")}
    history, trainer = fit(fingerprint)
    assert fit(dict(fingerprint))[0] == history  # tuples come back from JSON as lists, and still agree
    content = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(
        ValueError, match=r"belongs to another run \(it differs in rate, seed\).*another folder"
    ):
        fit({"widths": (4, 2), "seed": 4, "nothing": float("nan"), "rate": 0.1})
    with pytest.raises(ValueError, match="differs in nothing, seed, widths"):
        fit(None)
    with pytest.raises(ValueError, match="is of another model"):
        fit(fingerprint, model=nn.Linear(64, 4))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == content
    assert trainer.checkpoint == tmp_path


# -- stopping --------------------------------------------------------------------------------------------------------


def calm_problem(flips):
    """Labels change by a given share in each epoch: `flips[e]` of 100 samples."""
    x = torch.zeros(100, 1)
    source = BatchSource(SampleGraph.from_edges(torch.empty(2, 0, dtype=torch.int64), x))
    # The epoch is the model's own state, so that a resumed run goes on from there.
    model = nn.Linear(1, 1)
    model.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
    model.register_buffer("labels", torch.zeros(100, dtype=torch.int64))

    def loss(m, batch):
        m.labels[: flips[int(m.epoch)]] += 1
        m.epoch += 1
        return Step({"loss": 0 * m.weight.sum()}, nn.functional.one_hot(m.labels % 2, 2).float()[batch.index])

    return model, loss, source


@pytest.mark.parametrize(
    ("flips", "expected"),
    [
        ([0, 50, 4, 4, 4, 4, 4], 5),  # epochs 3, 4 and 5 are calm
        ([0, 4, 4, 5, 4, 4, 4, 50], 7),  # a share equal to the tolerance is not
        ([0, 50, 50, 50, 50, 50, 50, 50], 8),
    ],
)
def test_stops_when_labels_are_calm(flips, expected):
    model, loss, source = calm_problem(flips)
    stage = Stage("calm", loss, len(flips), tolerance=0.05, patience=3)
    history = Trainer(device="cpu").fit(model, [stage], source)
    assert len(history) == expected
    assert [r["changed"] for r in history] == [1.0] + [f / 100 for f in flips[1:expected]]


def test_the_warm_up_is_not_calm():
    model, loss, source = calm_problem([0] * 12)
    stage = Stage("calm", loss, 12, tolerance=0.05, patience=3, warm_up=5)  # a step an epoch
    assert len(Trainer(device="cpu").fit(model, [stage], source)) == 8


def test_without_tolerance_all_epochs_run():
    model, loss, source = calm_problem([0] * 8)
    assert len(Trainer(device="cpu").fit(model, [Stage("all", loss, 8, patience=1)], source)) == 8


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4])
def test_resume_keeps_the_calm_epochs_and_the_labels(tmp_path, killed_after):
    flips = [0, 50, 4, 4, 4, 4, 4, 4]
    model, loss, source = calm_problem(flips)
    stage = Stage("calm", _broken(loss, [killed_after]), 8, tolerance=0.05, patience=3)
    with pytest.raises(Killed):
        Trainer(device="cpu", checkpoint=tmp_path, checkpoint_every=1).fit(model, [stage], source)
    model, loss, source = calm_problem(flips)
    stage.loss = loss
    history = Trainer(device="cpu", checkpoint=tmp_path, checkpoint_every=1).fit(model, [stage], source)
    assert [r["changed"] for r in history] == [1.0, 0.5, 0.04, 0.04, 0.04]


def test_nan_stops_with_the_stage_s_name_and_keeps_the_checkpoint(graph, tmp_path):
    model, stages, source, memory = build(graph)
    healthy = stages[0].loss
    calls = [0]

    def sick(m, batch):
        calls[0] += 1
        step = healthy(m, batch)
        return Step({"fit": step.terms["fit"] * (float("nan") if calls[0] > 4 else 1.0)})

    stages[0].loss = sick
    trainer = Trainer(device="cpu", checkpoint=tmp_path, checkpoint_every=1)
    with pytest.raises(FloatingPointError, match="'squares'.*nan.*epoch 2.*learning rate"):
        trainer.fit(model, stages, source, memory=memory)
    stages[0].loss = healthy
    history = trainer.fit(model, stages[:1], source, memory=memory)  # the weights before the accident
    assert [r["epoch"] for r in history] == [1, 2, 3]
    assert all(torch.isfinite(p).all() for p in model.parameters())


# -- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", -1, "-1 epochs"),
        ("learning_rate", 0.0, "learning rate 0.0"),
        ("learning_rate", float("nan"), "learning rate nan"),
        ("batch_size", 0, "batch size 0"),
        ("patience", 0, "patience 0"),
        ("decay_every", 0, "decay_every 0"),
    ],
)
def test_impossible_stages(field, value, message):
    arguments = {"name": "first", "loss": None, "epochs": 1, field: value}
    with pytest.raises(ValueError, match=f"stage 'first' has {message}"):
        Stage(**arguments)


def test_device_and_precision(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(None).type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="'gpu' is not a torch device"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="'cuda'.*no CUDA device"):
            choose_device("cuda")
    with monkeypatch.context() as patch:  # as on a machine with several, of which the second is in use
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 4)
        patch.setattr(torch.cuda, "current_device", lambda: 1)
        patch.setattr("graphclust.training.trainer.check_device", torch.device)
        assert choose_device("cuda") == choose_device(None) == torch.device("cuda", 1)
        assert choose_device("cuda:3") == torch.device("cuda", 3)
        patch.setenv("LOCAL_RANK", "2")
        assert choose_device("cuda") == torch.device("cuda", 2)
    assert choose_precision("bf16-mixed", torch.device("cpu")) == "bf16-mixed"
    assert choose_precision("auto", torch.device("mps")) == "32-true"
    assert choose_precision("auto", torch.device("cpu")) in ("bf16-mixed", "32-true")
    with pytest.raises(ValueError, match="checkpoint_every=0 must be at least 1"):
        Trainer(checkpoint_every=0)


@pytest.mark.parametrize("theirs", [None, "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"])
def test_compiled_products_are_bounded_but_not_against_the_user(theirs, monkeypatch):
    names = [f"{prefix}_PRIMITIVE_CACHE_CAPACITY" for prefix in ("ONEDNN", "DNNL")]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    if theirs:
        monkeypatch.setenv(theirs, "7")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    trainer._bound_compiled_products()
    assert [os.environ.get(name) for name in names if name in os.environ] == (["7"] if theirs else ["256"])


def test_bfloat16_trains(graph, caplog):
    with caplog.at_level("INFO"):
        model, history, _ = run(graph, precision="bf16-mixed")
    assert not caplog.records  # Fabric would announce it in each fit
    exact = run(graph, precision="32-true")
    assert all(value.dtype != torch.bfloat16 for value in model.values())  # the weights stay in float32
    assert history[2]["fit"] == pytest.approx(exact[1][2]["fit"], rel=0.1)
    assert not torch.equal(model["0.weight"], exact[0]["0.weight"])


def test_history_is_plain_json(unbroken):
    assert json.loads(json.dumps(unbroken[1])) == unbroken[1]
