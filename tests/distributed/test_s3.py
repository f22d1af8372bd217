"""Everything of a job on Ray in a bucket: features, checkpoints, the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphclust import load
from graphclust.graph import NeighborSearch
from graphclust.methods import DEC

# A process of its own: what Ray starts reads the settings of the bucket from the environment.
SCRIPT = """
import numpy as np
import ray

import graphclust.distributed
from graphclust.graph import NeighborSearch
from graphclust.methods import DEC

if __name__ == "__main__":
    ray.init(num_cpus=2, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False)
    x = graphclust.distributed.open_features("s3://bucket/x.npy")
    engine = graphclust.distributed.RayEngine(block_rows=100, shard_rows=150)
    index, distance = NeighborSearch(engine=engine).fit(x).self_neighbors(5)
    model = DEC(10, random_state=0, hidden_channels=(32,), pretrain_epochs=3, epochs=3, batch_size=100)
    graphclust.distributed.fit(model, x, folder="s3://bucket/run")
    found = graphclust.distributed.predict("s3://bucket/run/model", x, engine=engine)
    np.savez("found.npz", index=index, distance=distance, labels=model.labels_, predicted=found)
"""


@pytest.mark.slow
def test_a_job_in_a_bucket(digits: Any, s3: Any, tmp_path: Path) -> None:
    pytest.importorskip("ray.train", reason="needs Ray Train: pip install graphclust[distributed]")
    x = digits[0][:400]
    np.save(tmp_path / "x.npy", x)
    s3.put_file(str(tmp_path / "x.npy"), "bucket/x.npy")
    (tmp_path / "job.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(
        [sys.executable, "job.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    with np.load(tmp_path / "found.npz") as found:
        index, distance = NeighborSearch(index="exact").fit(x).self_neighbors(5)
        np.testing.assert_array_equal(found["index"], index)
        np.testing.assert_array_equal(found["distance"], distance)
        small: dict[str, Any] = {
            "hidden_channels": (32,),
            "pretrain_epochs": 3,
            "epochs": 3,
            "batch_size": 100,
        }
        alone = DEC(10, random_state=0, **small).fit(x)
        assert np.mean(found["labels"] == alone.labels_) > 0.98
        np.testing.assert_array_equal(found["predicted"], found["labels"])
        np.testing.assert_array_equal(load("s3://bucket/run/model").labels_, found["labels"])
    s3.invalidate_cache()
    names = {path.split("/")[2] for path in s3.find("bucket/run")}
    assert names == {"checkpoint", "model", "outcome.json"}  # none of Ray's own notes
