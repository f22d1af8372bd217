import pickle

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

import graphclust.graph.engines as engines
import graphclust.graph.indexes as indexes
import graphclust.graph.metric as metrics
import graphclust.graph.search as search_module
from graphclust.graph import NeighborSearch

METRICS = [
    ("euclidean", 2.0, "euclidean", {}),
    ("cosine", 2.0, "cosine", {}),
    ("inner_product", 2.0, None, {}),
    ("manhattan", 2.0, "cityblock", {}),
    ("minkowski", 3.0, "minkowski", {"p": 3.0}),
    ("minkowski", np.inf, "chebyshev", {}),
]


def brute_force(x, y, k, metric, options, own=False):
    distance = -(x @ y.T) if metric is None else cdist(x, y, metric, **options)
    if own:
        np.fill_diagonal(distance, np.inf)
    index = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(distance, index, axis=1)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(300, 7)) + 0.5


@pytest.fixture
def no_faiss(monkeypatch):
    for module in (engines, indexes, search_module):
        monkeypatch.setattr(module, "load_faiss", lambda: None)


@pytest.fixture
def clustered():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(40, 16)) * 2
    return (centres[rng.integers(0, 40, 12_000)] + rng.normal(size=(12_000, 16))).astype(np.float32)


def share_found(found, truth):
    return np.mean(
        [len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)]
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize(("metric", "p", "name", "options"), METRICS)
def test_exact_equals_brute_force(x, metric, p, name, options, dtype):
    x = x.astype(dtype)
    search = NeighborSearch(metric, p=p).fit(x)
    wide = x.astype(np.float64)
    index, distance = search.self_neighbors(5)
    true_index, true_distance = brute_force(wide, wide, 5, name, options, own=True)
    np.testing.assert_array_equal(index, true_index)
    np.testing.assert_allclose(distance, true_distance, rtol=2e-6, atol=1e-7)
    assert index.dtype == torch.int64 and distance.dtype == torch.float32
    assert search.recall_ == 1.0 and search.index_name_ == "exact"

    index, distance = search.neighbors(x[:20] + dtype(0.25), 4)
    true_index, true_distance = brute_force((x[:20] + dtype(0.25)).astype(np.float64), wide, 4, name, options)
    np.testing.assert_array_equal(index, true_index)
    np.testing.assert_allclose(distance, true_distance, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(("metric", "p", "name", "options"), METRICS)
def test_without_faiss_torch_finds_the_same(x, no_faiss, metric, p, name, options):
    search = NeighborSearch(metric, p=p).fit(x)
    assert search.index_name_ == "exact (torch)"
    np.testing.assert_array_equal(
        search.self_neighbors(5)[0], brute_force(x, x, 5, name, options, own=True)[0]
    )


def test_without_faiss_large_data_names_both_extras(no_faiss):
    with pytest.raises(ImportError, match=r"graphclust\[cpu\].*graphclust\[gpu\]"):
        NeighborSearch().fit(np.zeros((engines.TORCH_LIMIT + 1, 2), dtype=np.float32))
    with pytest.raises(ImportError, match=r"graphclust\[cpu\].*graphclust\[gpu\]"):
        NeighborSearch(index="ivf").fit(np.zeros((100, 2), dtype=np.float32))


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_blocks_merge_exactly(x, metric, monkeypatch):
    whole = NeighborSearch(metric).fit(x).self_neighbors(9)
    monkeypatch.setattr("graphclust.graph.metric._BLOCK_BYTES", 37 * 4 * 7)
    monkeypatch.setattr("graphclust.graph.engines.QUERY_BLOCK", 41)
    monkeypatch.setattr("graphclust.graph.search._REFINE_BYTES", 5000)
    parts = NeighborSearch(metric).fit(x).self_neighbors(9)
    assert torch.equal(whole[0], parts[0]) and torch.equal(whole[1], parts[1])


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_ties_go_to_the_smaller_index(metric):
    grid = np.stack(np.meshgrid(np.arange(15), np.arange(15)), axis=-1).reshape(-1, 2).astype(np.uint8)
    wide = grid.astype(np.float64)
    for k in (1, 3, 6):
        name = "euclidean" if metric == "euclidean" else "cityblock"
        found = NeighborSearch(metric).fit(grid).self_neighbors(k)[0]
        np.testing.assert_array_equal(found, brute_force(wide, wide, k, name, {}, own=True)[0])


def test_duplicates_are_neighbours_and_a_sample_is_not_its_own():
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    x[10:40] = x[3]  # more duplicates than candidates
    x[:, 2] = 1.0  # a constant column
    index, distance = NeighborSearch().fit(x).self_neighbors(4)
    assert not (index == torch.arange(60).unsqueeze(1)).any()
    same = [3, *range(10, 40)]
    for i in same:
        assert index[i].tolist() == [j for j in same if j != i][:4]
        assert distance[i].tolist() == [0, 0, 0, 0]


def test_constant_data_works():
    index, distance = NeighborSearch().fit(np.ones((50, 3))).self_neighbors(2)
    assert index[0].tolist() == [1, 2] and index[5].tolist() == [0, 1]
    assert not distance.any()


def test_far_from_the_origin_nothing_cancels(x):
    shifted = (x + 1e4).astype(np.float32)
    wide = shifted.astype(np.float64)
    index, distance = NeighborSearch().fit(shifted).self_neighbors(5)
    true_index, true_distance = brute_force(wide, wide, 5, "euclidean", {}, own=True)
    np.testing.assert_array_equal(index, true_index)
    np.testing.assert_allclose(distance, true_distance, rtol=1e-6)
    index = NeighborSearch().fit(x + 1e9).self_neighbors(5)[0]  # float64, beyond float32's digits
    np.testing.assert_array_equal(index, brute_force(x + 1e9, x + 1e9, 5, "euclidean", {}, own=True)[0])


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_tiny_and_huge_values(x, scale, metric):
    expected = NeighborSearch(metric).fit(x).self_neighbors(5)[0]
    found = NeighborSearch(metric).fit((x * scale).astype(np.float32)).self_neighbors(5)[0]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_usps_equals_the_published_graphs(data_folder, k):
    images = np.load(data_folder / "usps.npz")["images"]
    x = (images.reshape(len(images), -1) / 1000).astype(np.float32)
    edges = np.load(data_folder / f"usps{k}_sdcn_graph.npz")["edges"].astype(np.int64)
    index = NeighborSearch().fit(x).self_neighbors(k)[0].numpy()
    found = np.repeat(np.arange(len(x)), k) * len(x) + index.reshape(-1)
    published = edges[:, 0] * len(x) + edges[:, 1]
    different = len(np.setdiff1d(published, found))
    assert len(published) == len(found)
    assert different <= (2 if k == 5 else 0)  # k = 5 has two ties


def test_float32_data_is_not_copied(tmp_path, x):
    array = x.astype(np.float32)
    np.save(tmp_path / "x.npy", array)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = NeighborSearch().fit(array).self_neighbors(3)
    for data in (array, mapped, torch.from_numpy(array)):
        search = NeighborSearch().fit(data)
        address = data.data_ptr() if isinstance(data, torch.Tensor) else data.ctypes.data
        assert search._rows.x.data_ptr() == address and search._rows.whole
        assert torch.equal(search.self_neighbors(3)[0], expected[0])
    for data in (np.asfortranarray(array), np.ascontiguousarray(array[:, ::-1])[:, ::-1]):
        assert torch.equal(NeighborSearch().fit(data).self_neighbors(3)[0], expected[0])


def test_zero_vectors_have_cosine_distance_one(x):
    x[[4, 9]] = 0
    with pytest.warns(UserWarning, match="2 of 300 samples are zero vectors"):
        search = NeighborSearch("cosine").fit(x)
    distance = search.self_neighbors(5)[1]
    assert (distance[[4, 9]] == 1).all()
    assert (search.neighbors(np.zeros((1, 7)), 3)[1] == 1).all()


@pytest.mark.parametrize(
    ("metric", "index"),
    [
        ("euclidean", "ivf"),
        ("cosine", "ivf"),
        ("inner_product", "ivf"),
        ("manhattan", "hnsw"),
        ("euclidean", "IVF32,SQ8"),
    ],
)
def test_approximate_reaches_the_wanted_recall(clustered, metric, index):
    search = NeighborSearch(metric, index=index, recall=0.9).fit(clustered[:6000])
    found, distance = search.self_neighbors(10)
    truth = NeighborSearch(metric, index="exact").fit(clustered[:6000]).self_neighbors(10)[0]
    recall = share_found(found, truth)
    assert abs(recall - search.recall_) < 0.05  # the estimate is honest
    assert recall > 0.88
    assert "nprobe=" in search.index_name_ or "efSearch=" in search.index_name_
    assert not (found == torch.arange(6000).unsqueeze(1)).any()
    assert (distance.diff(dim=1) >= 0).all()


def test_approximate_is_reproducible_and_survives_pickling(clustered):
    first = NeighborSearch(index="ivf", random_state=3).fit(clustered)
    second = NeighborSearch(index="ivf", random_state=3).fit(clustered)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    expected = first.self_neighbors(5)
    assert torch.equal(expected[0], second.self_neighbors(5)[0])
    assert torch.equal(expected[0], pickle.loads(pickle.dumps(first)).self_neighbors(5)[0])
    assert (state == np.random.get_state()[1]).all()  # noqa: NPY002


def test_hnsw_minkowski_uses_its_power(x):
    search = NeighborSearch("minkowski", p=4, index="hnsw", recall=0.99).fit(x)
    truth = brute_force(x, x, 5, "minkowski", {"p": 4}, own=True)[0]
    assert share_found(search.self_neighbors(5)[0], truth) > 0.97


def test_rows_without_enough_candidates_are_searched_exactly(clustered):
    search = NeighborSearch(index="IVF100,Flat", recall=0.01).fit(clustered[:1000])
    index = search.self_neighbors(60)[0]  # ten samples a list
    assert (index >= 0).all()
    assert (index.sort(dim=1).values.diff(dim=1) > 0).all()


def test_auto_rule():
    def chosen(n, d, metric="euclidean", p=2.0):
        return indexes.choose_index("auto", n, d, search_module.Metric.make(metric, p), torch.device("cpu"))

    assert chosen(9298, 256) is None
    assert chosen(10_000, 784) is None
    assert chosen(100_000, 64) == "IVF632,Flat"
    assert chosen(1_000_000, 128) == "IVF4000,Flat"
    assert chosen(100_000, 64, "manhattan") == "HNSW16,Flat"
    assert chosen(5_000, 100_000, "minkowski", 3.0) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"metric": "hamming"},
            "metric='hamming'.*'euclidean', 'cosine', 'inner_product', 'manhattan', 'minkowski'",
        ),
        ({"metric": "minkowski", "p": 0.5}, "p=0.5 must be at least 1"),
        ({"index": "lsh?"}, "index='lsh\\?'.*'auto', 'exact', 'ivf', 'hnsw'"),
        ({"index": "ivf", "metric": "manhattan"}, "index='ivf' does not know metric='manhattan'"),
        ({"index": "IVF4000,Flat"}, "cannot be trained on 300 samples"),
        ({"recall": 0}, "recall=0 must be above 0"),
        ({"device": "gpu"}, "device='gpu'"),
    ],
)
def test_bad_parameters(x, arguments, message):
    with pytest.raises(ValueError, match=message):
        NeighborSearch(**arguments).fit(x)


def test_bad_requests(x):
    search = NeighborSearch().fit(x)
    with pytest.raises(ValueError, match="n_neighbors=300 must be between 1 and 299"):
        search.self_neighbors(300)
    with pytest.raises(ValueError, match="n_neighbors=0"):
        search.neighbors(x, 0)
    with pytest.raises(TypeError, match="n_neighbors=2.5"):
        search.self_neighbors(2.5)
    with pytest.raises(ValueError, match="x_query has 6 features, but 7 were fitted"):
        search.neighbors(x[:, :6], 3)
    with pytest.raises(ValueError, match="has 1"):
        NeighborSearch().fit(x[:1]).self_neighbors(1)
    with pytest.raises(RuntimeError, match="fit"):
        NeighborSearch().self_neighbors(1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("metric", "p", "name", "options"), METRICS)
def test_cuda_equals_brute_force(x, metric, p, name, options):
    truth = brute_force(x, x, 5, name, options, own=True)[0]
    np.testing.assert_array_equal(
        NeighborSearch(metric, p=p, device="cuda").fit(x).self_neighbors(5)[0], truth
    )
    index = NeighborSearch(metric, p=p).fit(torch.from_numpy(x).cuda()).self_neighbors(5)[0]
    assert index.is_cuda
    np.testing.assert_array_equal(index.cpu(), truth)


def test_exact_whatever_precision_products_have():
    """'medium' multiplies in bfloat16 or TF32, which would name other neighbours and call them exact."""
    x = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    before = torch.get_float32_matmul_precision()
    top = engines._torch_engine(metrics.Metric.make("euclidean"), torch.device("cpu"))
    score, index = top(x)(x, 10)
    try:
        torch.set_float32_matmul_precision("medium")
        low_score, low_index = top(x)(x, 10)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(index, low_index) and torch.equal(score, low_score)


def test_without_faiss_a_large_search_goes_to_cuda(monkeypatch):
    monkeypatch.setattr(engines, "load_faiss", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cpu = torch.device("cpu")
    assert engines.without_faiss(cpu, engines.TORCH_LIMIT) == cpu
    assert engines.without_faiss(cpu, engines.TORCH_LIMIT + 1) == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert engines.without_faiss(cpu, engines.TORCH_LIMIT + 1) == cpu


def test_a_block_of_samples_goes_to_the_device_once(monkeypatch):
    """However many blocks of queries are compared with it."""
    monkeypatch.setattr(engines, "QUERY_BLOCK", 10)
    monkeypatch.setattr(metrics, "_BLOCK_BYTES", 4 * 4 * 30)  # thirty rows of four
    x = torch.randn(70, 4)
    rows = metrics.Rows(x, metrics.Metric.make("euclidean"))
    torch_engine, taken = engines._torch_engine(rows.metric, torch.device("cpu")), []

    def engine(base):
        taken.append(len(base))
        return torch_engine(base)

    found = engines.scan(rows, rows, 5, engine, iter, device=torch.device("mps"))
    assert taken == [30, 30, 10]
    assert torch.equal(
        found.sort(dim=1).values, torch.cdist(x, x).topk(5, largest=False).indices.sort(dim=1).values
    )


def test_the_name_and_the_recall_are_those_of_the_latest_search():
    x = torch.randn(6000, 8)
    search = NeighborSearch(index="self-join", recall=0.7, random_state=0).fit(x)
    search.self_neighbors(5)
    assert search.index_name_.startswith("self-join") and search.recall_ < 1.0
    search.neighbors(x[:3], 5)
    assert (search.index_name_, search.recall_) == ("exact", 1.0)
