"""FaissNeighbors in scikit-learn: one fast search for spectral clustering, DBSCAN and whatever else takes neighbours.

Run: python examples/neighbors_in_sklearn.py
"""

from sklearn.cluster import DBSCAN, SpectralClustering
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline

from graphclust import FaissNeighbors
from graphclust.metrics import evaluate


def main() -> None:
    digits = load_digits()
    spectral = make_pipeline(
        FaissNeighbors(n_neighbors=10),
        SpectralClustering(
            n_clusters=10, affinity="precomputed_nearest_neighbors", n_neighbors=10, random_state=0
        ),
    )
    density = make_pipeline(
        FaissNeighbors(n_neighbors=30),
        DBSCAN(eps=23.0, min_samples=10, metric="precomputed"),
    )
    for name, pipeline in (("spectral clustering", spectral), ("DBSCAN", density)):
        labels = pipeline.fit_predict(digits.data)
        scores = evaluate(digits.target, labels)
        print(
            f"{name:<20} {labels.max() + 1:>3} clusters, {(labels < 0).sum():>3} samples as noise, "
            f"ACC {scores['ACC']:.3f}, NMI {scores['NMI']:.3f}"
        )


if __name__ == "__main__":
    main()
