import copy
import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCNConv
from torch_geometric.transforms import NormalizeFeatures, ToUndirected

from graphclust.graph import SampleGraph, storage


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)


@pytest.fixture
def graph(x):
    return SampleGraph.from_features(x, 6)


def same(a, b):
    assert sorted(a.keys()) == sorted(b.keys()) and a.construction == b.construction
    assert all(torch.equal(value, b[key]) for key, value in a.items() if isinstance(value, torch.Tensor))


def dense(graph):
    """A[i, j]: the weight by which i receives from j."""
    a = torch.zeros(graph.num_nodes, graph.num_nodes)
    a[graph.edge_index[1], graph.edge_index[0]] = graph.edge_weight
    return a


def test_layout(graph, x):
    assert graph.x.data_ptr() == x.ctypes.data
    assert graph.edge_index.dtype == graph.neighbor_index.dtype == torch.int64
    assert graph.edge_weight.dtype == graph.neighbor_distance.dtype == torch.float32
    key = graph.edge_index[1] * 80 + graph.edge_index[0]
    assert (key.diff() > 0).all() and not graph.has_self_loops()
    assert torch.equal(dense(graph), dense(graph).T) and graph.is_undirected()
    directed = SampleGraph.from_features(x, 6, symmetrize="none", kernel="binary")
    assert torch.equal(directed.edge_index[1].bincount(), torch.full((80,), 6))
    for i in range(80):
        sources = directed.edge_index[0, directed.edge_index[1] == i]
        assert set(sources.tolist()) == set(graph.neighbor_index[i].tolist())


@pytest.mark.parametrize(
    ("given", "kept"),
    [("float32", True), ("float16", True), ("uint8", True), ("float64", False), ("int32", False)],
)
def test_types_and_sharing(x, given, kept):
    data = np.round(x * 20 + 100).astype(given)
    graph = SampleGraph.from_features(data, 3)
    assert graph.x.dtype == (getattr(torch, given) if kept else torch.float32)
    assert (graph.x.data_ptr() == data.ctypes.data) == kept


def test_construction_is_plain(x):
    for options in ({}, {"bandwidth": "median"}, {"bandwidth": 2, "metric": "minkowski", "p": np.float64(3)}):
        how = SampleGraph.from_features(x, np.int64(4), **options).construction
        assert json.loads(json.dumps(how)) == how and how["n_neighbors"] == 4


def test_repr_and_summary(x):
    graph = SampleGraph.from_features(np.concatenate([x, x + 100]), 6)
    edges = graph.num_edges
    assert repr(graph) == (
        f"SampleGraph(160 samples x 5 features, 6 neighbours, euclidean, {edges:,} edges, "
        "heat/self-tuning, union, exact)"
    )
    labels = np.repeat(["left", "right"], 80)
    summary = graph.summary(labels)
    degree = graph.edge_index[1].bincount(minlength=160)
    assert summary.n_components == 2 and summary.largest_component == 80 and summary.n_isolated == 0
    assert summary.homophily == 1.0 and summary.recall == 1.0
    assert (summary.degree_min, summary.degree_max) == (int(degree.min()), int(degree.max()))
    counts = graph.neighbor_index.flatten().bincount(minlength=160)
    assert summary.hubs[0] == (int(counts.argmax()), int(counts.max()))
    z = (counts - counts.double().mean()) / counts.double().std(correction=0)
    assert summary.hub_skewness == pytest.approx(float(z.pow(3).mean()))
    assert "2, the largest with 80 samples" in str(summary) and "homophily    1.000" in str(summary)
    with pytest.raises(ValueError, match=r"labels has shape \[159\]"):
        graph.summary(labels[1:])


def test_isolated_samples_and_homophily():
    graph = SampleGraph.from_edges([[0, 1, 2], [1, 2, 3]], np.eye(6))
    summary = graph.summary([0, 0, 1, 1, 2, 2])
    assert summary.n_isolated == 2 and summary.n_components == 3 and summary.homophily == pytest.approx(2 / 3)
    assert repr(graph) == "SampleGraph(6 samples x 6 features, 6 edges, union)"


def test_from_edges():
    graph = SampleGraph.from_edges(
        [[0, 0, 1, 2], [1, 1, 1, 0]], np.eye(3), [1.0, 4.0, 9.0, 2.0], symmetrize="none"
    )
    assert graph.edge_index.tolist() == [[2, 0], [0, 1]] and graph.edge_weight.tolist() == [2, 4]
    assert graph.neighbor_index is None and graph.construction == {"source": "edges", "symmetrize": "none"}
    x = np.eye(3)
    for edges, weight, message in (
        ([[0], [3]], None, "0 to 3, but x has the samples 0 to 2"),
        ([[-1], [0]], None, "from -1"),
        ([0, 1], None, "sources, then targets"),
        ([[0], [1]], [1.0, 2.0], r"edge_weight has shape \[2\]"),
        ([[0], [1]], [-1.0], r"edge 0 \(0 to 1\) is -1 \(1 of 1"),
        ([[0, 1], [1, 2], [0, 2]], None, "numpy.transpose"),
        ([[0], [1]], [np.nan], "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            SampleGraph.from_edges(edges, x, weight)
    with pytest.raises(TypeError, match="whole numbers"):
        SampleGraph.from_edges([[0.0], [1.0]], x)
    with pytest.raises(TypeError, match=r"x is None.*torch.ones\(N, 1\)"):
        SampleGraph.from_edges([[0], [1]], None)


def test_from_an_adjacency_matrix():
    x = np.eye(3)
    adjacency = csr_array(np.array([[5, 2, 0], [0, 0, 3], [0, 0, 0]], np.float32))
    graph = SampleGraph.from_edges(adjacency, x, symmetrize="none")
    assert graph.edge_index.tolist() == [[0, 1], [1, 2]] and graph.edge_weight.tolist() == [2, 3]
    assert SampleGraph.from_edges([[], []], x).edge_index.shape == (2, 0)
    for edges, weight, message in (
        (csr_array(np.eye(4)), None, r"shape \[4, 4\], but x has 3 samples"),
        (adjacency, [1.0, 1.0], "leave it out"),
        (adjacency.toarray().astype(int), None, "csr_array"),
    ):
        with pytest.raises(ValueError, match=message):
            SampleGraph.from_edges(edges, x, weight)


def test_weights_that_are_not_read_are_told(x):
    data = Data(x=torch.from_numpy(x), edge_index=torch.tensor([[0, 1], [1, 2]]))
    for name, value, column in (
        ("weight", torch.ones(2), "data.weight$"),  # as torch_geometric.utils.from_networkx calls it
        ("edge_attr", torch.ones(2, 3), r"data.edge_attr\[:, 0\]$"),
    ):
        other = data.clone()
        other[name] = value
        with pytest.warns(UserWarning, match=column):
            SampleGraph.from_data(other)
        other.edge_weight = torch.ones(2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            SampleGraph.from_data(other)


def test_from_data(x):
    y = torch.arange(80)
    made = SampleGraph.from_data(Data(x=torch.from_numpy(x), y=y), n_neighbors=6)
    assert torch.equal(made.y, y) and torch.equal(made.edge_index, SampleGraph.from_features(x, 6).edge_index)
    edges = torch.tensor([[0, 1], [1, 2]])
    given = SampleGraph.from_data(
        Data(x=torch.eye(3), edge_index=edges, edge_attr=torch.tensor([[2.0], [3.0]]))
    )
    assert given.edge_index.tolist() == [[1, 0, 2, 1], [0, 1, 1, 2]] and given.edge_weight.tolist() == [
        2,
        2,
        3,
        3,
    ]
    assert SampleGraph.from_data(made) is made
    with pytest.raises(ValueError, match="data has edges, for which n_neighbors"):
        SampleGraph.from_data(Data(x=torch.eye(3), edge_index=edges), n_neighbors=2)
    with pytest.raises(ValueError, match="no x"):
        SampleGraph.from_data(Data(edge_index=edges))
    with pytest.raises(TypeError, match="ndarray"):
        SampleGraph.from_data(x)


@pytest.mark.parametrize("self_loops", [True, False])
def test_normalized_equals_dense(x, self_loops):
    graph = SampleGraph.from_features(x, 4, symmetrize="none").attach(x[:3] + 0.1)
    a = dense(graph) + (torch.eye(83) if self_loops else 0)
    degree = a.sum(dim=1)
    root = degree.rsqrt()
    torch.testing.assert_close(dense(graph.normalized("row", self_loops)), a / degree.unsqueeze(1))
    found = graph.normalized("symmetric", self_loops)
    torch.testing.assert_close(dense(found), root.unsqueeze(1) * a * root)
    assert ((found.edge_index[1] * 83 + found.edge_index[0]).diff() > 0).all()
    with pytest.raises(ValueError, match="already normalised"):
        found.normalized()
    with pytest.raises(ValueError, match="kind='left'"):
        graph.normalized("left")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bandwidth": "median"},
        {"bandwidth": 3.0},
        {"kernel": "binary", "metric": "manhattan"},
        {"kernel": "cosine", "metric": "cosine"},
    ],
)
def test_attach(x, options):
    graph = SampleGraph.from_features(x, 4, **options)
    new = np.random.default_rng(1).normal(size=(7, 5))
    bigger = graph.attach(new)
    assert bigger.num_nodes == 87 and bigger.num_old == 80 and bigger.num_edges == graph.num_edges + 28
    old_part = bigger.edge_index[1] < 80
    assert torch.equal(bigger.edge_index[:, old_part], graph.edge_index)
    assert torch.equal(bigger.edge_weight[old_part], graph.edge_weight)
    assert (bigger.edge_index[0, ~old_part] < 80).all()
    assert ((bigger.edge_index[1] * 87 + bigger.edge_index[0]).diff() > 0).all()
    a, new = dense(bigger), torch.from_numpy(new)
    kth = graph.neighbor_distance[:, -1].double()
    for m in range(7):
        difference = torch.from_numpy(x).double() - new[m]
        cosine = torch.cosine_similarity(torch.from_numpy(x).double(), new[m : m + 1])
        name = options.get("metric")
        distance = 1 - cosine if name == "cosine" else difference.norm(1 if name == "manhattan" else 2, dim=1)
        nearest = distance.argsort()[:4]
        assert bigger.neighbor_index[80 + m].tolist() == nearest.tolist()
        if options.get("kernel") == "binary":
            expected = torch.ones(4, dtype=torch.float64)
        elif options.get("kernel") == "cosine":
            expected = cosine[nearest].clamp_min(0)
        else:
            t = options.get("bandwidth", "self-tuning")
            t = graph.neighbor_distance.double().square().median() if t == "median" else t
            t = distance[nearest[-1]] * kth[nearest] if t == "self-tuning" else t
            expected = (-(distance[nearest] ** 2) / t).exp()
        torch.testing.assert_close(a[80 + m, nearest].double(), expected, rtol=1e-5, atol=1e-6)


def test_attach_again_and_not_at_all(x, graph):
    twice = graph.attach(x[:2]).attach(x[2:5])
    assert twice.num_nodes == 85 and twice.num_old == 82
    assert twice.neighbor_distance[80:, 0].tolist() == [0] * 5  # they meet their twins
    with pytest.raises(ValueError, match="x_new has 4 features, but 5"):
        graph.attach(x[:, :4])
    for other in (graph.normalized(), SampleGraph.from_edges(graph.edge_index, x)):
        with pytest.raises(ValueError, match="from_features"):
            other.attach(x)


def test_copies(graph):
    for other in (
        graph.clone(),
        copy.copy(graph),
        copy.deepcopy(graph),
        pickle.loads(pickle.dumps(graph)),
        graph.to("cpu"),
    ):
        assert type(other) is SampleGraph
        same(other, graph)
    assert graph.clone().edge_weight.data_ptr() != graph.edge_weight.data_ptr()
    changed = copy.copy(graph)
    changed.construction = {"source": "test"}
    assert graph.construction["source"] == "features"


def test_with_pyg(graph):
    assert isinstance(NormalizeFeatures()(graph), SampleGraph) and isinstance(
        ToUndirected()(graph), SampleGraph
    )
    out = GCNConv(5, 3)(graph.x, graph.edge_index, graph.edge_weight)
    again = GCNConv(5, 3, normalize=False)(
        graph.x, *[graph.normalized()[k] for k in ("edge_index", "edge_weight")]
    )
    assert out.shape == again.shape == (80, 3)
    batch = Batch.from_data_list([graph, graph])
    assert batch.num_nodes == 160 and batch.neighbor_index.shape == (160, 6)
    assert batch.neighbor_index[80:].min() >= 80
    part = graph.subgraph(torch.arange(10))
    assert (
        part.num_nodes == 10
        and part.neighbor_index is None
        and "neighbor_distance" not in part
        and part.edge_index.max() < 10
    )


def test_save_and_open(tmp_path, graph):
    graph.y = torch.arange(80)
    graph.save(tmp_path / "a" / "graph")
    opened = SampleGraph.open(tmp_path / "a" / "graph")
    same(opened, graph)
    assert repr(opened) == repr(graph)
    same(opened.attach(graph.x[:3]), graph.attach(graph.x[:3]))
    edges = SampleGraph.from_edges(graph.edge_index, graph.x.half())
    edges.save(tmp_path / "edges")
    assert SampleGraph.open(tmp_path / "edges").neighbor_index is None
    none = SampleGraph.from_edges(torch.empty(2, 0, dtype=torch.long), graph.x)
    none.save(tmp_path / "none")
    assert SampleGraph.open(tmp_path / "none").num_edges == 0


def test_overwriting(tmp_path, graph, x):
    graph.save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    opened = SampleGraph.open(tmp_path)
    opened.x[0] = 7.0  # copy on write: the file keeps its values
    same(SampleGraph.open(tmp_path), graph)
    smaller = SampleGraph.from_features(x[:40], 3)
    smaller.save(tmp_path)
    same(SampleGraph.open(tmp_path), smaller)
    assert opened.x.shape == (80, 5) and float(opened.x[1, 0]) == float(
        x[1, 0]
    )  # its files live on while mapped
    assert len(list(tmp_path.glob("*.npy"))) == 5 and (tmp_path / "notes.txt").exists()
    SampleGraph.open(tmp_path).save(tmp_path)  # onto the files that it maps
    same(SampleGraph.open(tmp_path), smaller)


@pytest.mark.parametrize("stage", ["first array", "last array", "header"])
def test_interrupted_save_keeps_the_old_graph(tmp_path, graph, x, stage, monkeypatch):
    graph.save(tmp_path)
    calls = {"first array": 1, "last array": 5, "header": 6}[stage]
    done = []

    def flush(stream):
        done.append(stream)
        if len(done) == calls:
            raise KeyboardInterrupt

    monkeypatch.setattr(storage, "_flush", flush)
    with pytest.raises(KeyboardInterrupt):
        SampleGraph.from_features(x[:40], 3).save(tmp_path)
    monkeypatch.undo()
    same(SampleGraph.open(tmp_path), graph)
    SampleGraph.from_features(x[:40], 3).save(tmp_path)
    assert SampleGraph.open(tmp_path).num_nodes == 40


def test_open_errors(tmp_path, graph):
    with pytest.raises(FileNotFoundError, match="no saved graph"):
        SampleGraph.open(tmp_path)
    graph.save(tmp_path)
    header = json.loads((tmp_path / "graph.json").read_text())
    array = tmp_path / header["arrays"]["x"]["file"]
    content = array.read_bytes()

    def broken(message):
        with pytest.raises(ValueError, match=message):
            SampleGraph.open(tmp_path)

    array.write_bytes(content[:-40])
    broken(r"x\.\w+\.npy cannot be read .shorter")
    array.write_bytes(content[:20])
    broken(r"x\.\w+\.npy cannot be read")
    np.save(array, np.zeros((3, 5), dtype=np.float32))
    broken(r"holds <f4 \[3, 5\], but graph.json says <f4 \[80, 5\]")
    array.unlink()
    broken(r"x\.\w+\.npy is missing")
    for change, message in (
        ({"version": 99}, "format version 99, but this graphclust reads version 1"),
        ({"format": "other"}, "does not describe a sample graph"),
        ({"arrays": [1]}, "damaged"),
    ):
        (tmp_path / "graph.json").write_text(json.dumps({**header, **change}))
        broken(message)
    (tmp_path / "graph.json").write_text("{")
    broken("damaged")


def test_save_errors(tmp_path, graph):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        graph.save(tmp_path / "file")
    graph.extra = object()
    with pytest.raises(TypeError, match="extra"):
        graph.save(tmp_path)


def test_bad_features(x):
    for features, options, message in (
        (x, {"n_neighbors": 80}, "n_neighbors=80 must be between 1 and 79"),
        (x.reshape(80, 5, 1), {}, r"x.reshape\(len\(x\), -1\)"),
        (x, {"metric": "inner_product"}, "kernel='heat' needs distances"),
        (x, {"kernel": "rbf"}, "kernel='rbf'"),
        (x, {"symmetrize": "max"}, "symmetrize='max'"),
        (x, {"n_neighbors": 3, "index": "flat?"}, "index='flat"),
    ):
        with pytest.raises(ValueError, match=message):
            SampleGraph.from_features(features, **options)


def test_digits_join_their_own_class(digits):
    graph = SampleGraph.from_features(digits[0], 5)
    assert graph.summary(digits[1]).homophily > 0.95
