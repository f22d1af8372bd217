"""Training by several processes on the machines of a Ray cluster, which goes on when one of them is lost."""

from __future__ import annotations

import json
import numbers
import os
import uuid
from collections import Counter
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch_geometric.data import Data

from graphclust._checks import check_count, check_features
from graphclust._storage import filesystem, inside, read_text, remove, resolve, write_text
from graphclust.distributed._ray import connect
from graphclust.distributed.engine import RayEngine
from graphclust.distributed.rows import FilePart, MappedFile, read
from graphclust.graph import SampleGraph
from graphclust.methods.base import DeepClusterer, draw_seed

Model = TypeVar("Model", bound=DeepClusterer)

_MODEL, _OUTCOME, _SEED, _NOTES = "model", "outcome.json", "seed.txt", "ray"

#: Seconds between two looks at whether the cluster has room for more processes. Each change of their number costs
#: what was trained since the last checkpoint, and half a minute to start.
_RESIZE_EVERY = 60.0

#: What a method says about its input. It would say so again: such an error ends the job, all others are tried again.
_FINAL_ERRORS = (ValueError, TypeError, FloatingPointError, FileNotFoundError)

#: How long a process with such an error waits for the same one of all others, before it ends them.
_SAME_ERROR_WITHIN = timedelta(seconds=30)


def fit(
    model: Model,
    X: Any,
    *,
    folder: str | os.PathLike[str],
    workers: int | tuple[int, int] = 2,
    engine: RayEngine | str | None = None,
    use_gpu: bool = False,
) -> Model:
    """``model.fit(X)`` by several processes on a Ray cluster, each with its part of every batch.

    Ray Train starts the processes (PyTorch's process group: gloo, or NCCL with `use_gpu`); what they compute is said in
    `graphclust.training.processes`. When a machine or a process is lost, all processes start again, on the machines
    that there are then, from the last checkpoint (every tenth epoch, every five minutes and after each stage), and end
    with the result of an unbroken run. With a range of `workers` they do so too when machines join, with more
    processes. The same call with the same folder goes on where the whole job was lost.

    Parameters
    ----------
    model : estimator
        Not fitted; with a `batch_size`, without which there is nothing to share out. Its `checkpoint` is not used.
    X : array, tensor, memory map, SampleGraph, PyG Data, or path
        What the model's `fit` takes. A memory map of a file is mapped by each machine, see `RayEngine`; a path is the
        folder of a saved `SampleGraph`, which each machine opens. Anything else goes through Ray's object store.
    folder : path or address
        On storage that all machines share: for checkpoints, and the fitted model as ``model``. Addresses that fsspec
        knows, such as ``s3://bucket/run``, need its library for them on every machine.
    workers : int or (int, int)
        Processes; least and most of them, where the job should start and go on with fewer while machines are missing,
        and with more when they join while it runs (looked for once a minute).
    engine : RayEngine, optional
        ``address`` of the cluster, ``cpus_per_task`` processors and threads of a process, ``max_retries`` how often
        training goes on after a loss. ``tasks_`` then counts the processes that each machine had at the end.
    use_gpu : bool
        One CUDA device for each process.

    Returns
    -------
    estimator
        The same `model`, fitted.

    Raises
    ------
    TypeError, ValueError
        For a model that is not trained in batches, or what the model's `fit` says about its input.
    ImportError
        When Ray is not installed.
    RuntimeError
        When Ray gave up.
    """
    engine = _checked(model, folder, workers, engine)
    place = _place(folder)
    remove(place, _OUTCOME)
    ray = connect(engine.address)
    from ray.train import FailureConfig, RunConfig
    from ray.train.torch import TorchTrainer

    scaling = _scaling(ray, workers, engine, use_gpu)
    given = model.random_state
    seed = int(given) if isinstance(given, numbers.Integral) else _seed(place, given)
    settings = model.get_params(deep=False) | {
        "random_state": seed,
        "checkpoint": inside(place, "checkpoint"),
    }
    job = {
        "model": type(model)(**settings),
        "data": _sent(ray, X),
        "folder": place,
        "threads": engine.cpus_per_task,
    }
    trainer = TorchTrainer(
        _train,
        train_loop_config=job,
        scaling_config=scaling,
        # A name of its own: what goes on is our checkpoint, not Ray's record of an earlier job.
        run_config=RunConfig(
            name=uuid.uuid4().hex,
            **_notes(place),
            failure_config=FailureConfig(max_failures=engine.max_retries),
        ),
    )
    engine.tasks_.clear()
    try:
        trainer.fit()
    except Exception as error:
        _raise_error_in(place)
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RuntimeError(
            f"Ray gave the training up ({reason}); the same call with folder={str(folder)!r} goes on from the last "
            "checkpoint"
        ) from error
    finally:
        remove(place, _NOTES)
    return _take(model, place, engine)


@dataclass(frozen=True)
class _Graph:
    """A saved sample graph, which each machine opens."""

    folder: str


def _checked(model: Any, folder: Any, workers: Any, engine: Any) -> RayEngine:
    """The engine, ready to work; raises where the arguments make no sense."""
    if not isinstance(model, DeepClusterer):
        raise TypeError(
            f"{type(model).__name__} is not trained in batches, so several processes cannot share its work: call "
            "its fit on one machine"
        )
    if not isinstance(folder, (str, os.PathLike)):
        raise ValueError(
            f"folder={folder!r} is no path: name a folder on storage that all machines share, for checkpoints"
        )
    bounds = workers if isinstance(workers, (tuple, list)) else (workers, workers)
    if len(bounds) != 2:
        raise ValueError(f"workers={workers!r} must be a number, or the least and the most")
    check_count(bounds[0], "workers")
    check_count(bounds[1], "workers", bounds[0])
    if engine is None or (isinstance(engine, str) and engine == "ray"):
        engine = RayEngine()
    if not isinstance(engine, RayEngine):
        raise ValueError(
            f"engine={engine!r} is not known; choose 'ray' or a graphclust.distributed.RayEngine"
        )
    engine.check(torch.device("cpu"))
    model._check_parameters()
    return engine


def _scaling(ray: Any, workers: Any, engine: RayEngine, use_gpu: bool) -> Any:
    """Ray Train's settings for a number of processes, or a range of them."""
    from ray.train import ScalingConfig

    resources = {"CPU": engine.cpus_per_task} | ({"GPU": 1} if use_gpu else {})
    if isinstance(workers, (tuple, list)):
        if "elastic_resize_monitor_interval_s" not in {field.name for field in fields(ScalingConfig)}:
            raise ValueError(
                f"workers={workers!r}: the installed Ray {ray.__version__} trains with a fixed number of processes; "
                "pass one number, or install a Ray with elastic training (pip install --upgrade ray)"
            )
        elastic: Any = {"num_workers": tuple(workers), "elastic_resize_monitor_interval_s": _RESIZE_EVERY}
        return ScalingConfig(use_gpu=use_gpu, resources_per_worker=resources, **elastic)
    return ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker=resources)


def _notes(place: Path | str) -> dict[str, Any]:
    """Where Ray Train keeps its own record of the job."""
    notes = inside(place, _NOTES)
    if isinstance(notes, Path):
        return {"storage_path": str(notes)}
    # By itself Ray would open the few addresses that pyarrow knows, and with other settings than fsspec has.
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    files, root = filesystem(notes)
    return {"storage_path": root, "storage_filesystem": PyFileSystem(FSSpecHandler(files))}


def _place(folder: str | os.PathLike[str]) -> Path | str:
    place = resolve(folder)
    if isinstance(place, Path):
        place = place.absolute()
        place.mkdir(parents=True, exist_ok=True)
    return place


def _seed(place: Path | str, random_state: Any) -> int:
    """A seed where the model has none: drawn once for a folder, so that a job can go on there."""
    known = read_text(place, _SEED) if random_state is None else None
    if known is not None:
        return int(known)
    seed = draw_seed(random_state)
    write_text(place, _SEED, str(seed))
    return seed


def _sent(ray: Any, X: Any) -> Any:
    """What stands for the data in a message to a machine."""
    if isinstance(X, (str, os.PathLike)):
        place = resolve(X)
        return _Graph(str(place.absolute() if isinstance(place, Path) else place))
    file = MappedFile.of(X)
    if file is not None:
        return FilePart(file, 0, file.shape[0])
    if not isinstance(X, Data) and getattr(X, "ndim", None) == 2:
        X = check_features(X, "X").numpy()
    return [ray.put(X)]  # in a list, lest Ray fetches it where it is not needed


def _received(ray: Any, data: Any) -> Any:
    """The data, on the machine that trains."""
    if isinstance(data, _Graph):
        return SampleGraph.open(data.folder)
    if isinstance(data, FilePart):
        return read(data)
    return ray.get(data[0])


def _train(job: dict[str, Any]) -> None:
    """What each process does. The first leaves the model, or one what is wrong with the input, in the folder."""
    import ray
    import torch.distributed as dist

    torch.set_num_threads(job["threads"])
    place = job["folder"]
    alike = dist.new_group(backend="gloo", timeout=_SAME_ERROR_WITHIN)
    nodes = _gathered(ray.get_runtime_context().get_node_id())
    if any(_gathered(_error_in(place) is not None)):
        return  # of an attempt before this one: it would come again
    outcome: dict[str, Any] = {"nodes": nodes}

    def fail(error: Exception) -> None:
        write_text(
            place, _OUTCOME, json.dumps(outcome | {"error": type(error).__name__, "message": str(error)})
        )

    data, wrong = None, None
    try:
        data = _received(ray, job["data"])
    except _FINAL_ERRORS as error:
        wrong = error
        fail(error)
    # An error may be this process's alone, such as a file that one machine does not see: the others would wait for it.
    if any(_gathered(wrong is not None)):
        return
    try:
        model = job["model"].fit(data)
    except _FINAL_ERRORS as error:
        fail(error)
        try:
            dist.barrier(group=alike)
        except RuntimeError:
            raise error from None  # the others go on training: Ray ends them
        return
    if dist.get_rank() == 0:
        model.save(inside(place, _MODEL))
        write_text(place, _OUTCOME, json.dumps(outcome))


def _gathered(value: Any) -> list[Any]:
    """The values of all processes."""
    import torch.distributed as dist

    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _error_in(place: Path | str) -> dict[str, Any] | None:
    """What a process said about the input, where one did."""
    outcome = read_text(place, _OUTCOME)
    found: dict[str, Any] = {} if outcome is None else json.loads(outcome)
    return found if "error" in found else None


def _raise_error_in(place: Path | str) -> None:
    found = _error_in(place)
    if found is not None:
        known = [kind for kind in _FINAL_ERRORS if kind.__name__ == found["error"]]
        raise (known or [ValueError])[0](found["message"])


def _take(model: Model, place: Path | str, engine: RayEngine) -> Model:
    """Give the model what the processes left in the folder."""
    outcome = read_text(place, _OUTCOME)
    if outcome is None:
        raise RuntimeError(
            f"the training ended, but its {_OUTCOME} is not in folder={str(place)!r}, which has to be on storage that "
            "all machines share"
        )
    _raise_error_in(place)
    found = json.loads(outcome)
    engine.tasks_.update(Counter(found["nodes"]))
    parameters = model.get_params(deep=False)
    callables = {name: value for name, value in parameters.items() if callable(value)}
    fitted = type(model).load(inside(place, _MODEL), device=model.device, **callables)
    for name, value in vars(fitted).items():
        if name not in parameters:
            setattr(model, name, value)
    return model
