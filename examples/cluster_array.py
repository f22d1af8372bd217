"""Cluster the rows of an array with VGDCN, and look at what came out.

Run: python examples/cluster_array.py
"""

from sklearn.datasets import load_digits

from graphclust import VGDCN
from graphclust.metrics import evaluate


def main() -> None:
    digits = load_digits()
    x = digits.data / 16  # grey values in [0, 1]

    model = VGDCN(n_clusters=10, random_state=0)
    labels = model.fit_predict(x)

    print(model.graph_.summary())
    print("first ten labels:       ", labels[:10])
    print("their probabilities:    ", model.probabilities_.max(axis=1)[:10].round(3))
    print("embedding:              ", model.embedding_.shape)
    images, _ = model.sample(5, cluster=0)
    print("images drawn from cluster 0:", images.shape)

    # The true digits were not used above; they tell now how well it went.
    print({name: round(score, 3) for name, score in evaluate(digits.target, labels).items()})


if __name__ == "__main__":
    main()
