"""Label samples that were not there when the model was fitted, from a model that was saved.

Run: python examples/new_samples.py
"""

import tempfile
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import graphclust
from graphclust.metrics import match_labels


def main() -> None:
    digits = load_digits()
    old, new, old_classes, new_classes = train_test_split(
        digits.data / 16, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    with tempfile.TemporaryDirectory() as folder:
        model = graphclust.VGDCN(n_clusters=10, random_state=0).fit(old)
        model.save(Path(folder) / "model")

        # Somewhere else, later: the new samples are joined to their neighbours among the old ones.
        later = graphclust.load(Path(folder) / "model")
        found = later.predict(new)

    # Which class each cluster stands for is decided on the old samples alone.
    classes = match_labels(old_classes, model.labels_)
    for name, labels, truth in (("fitted", model.labels_, old_classes), ("new", found, new_classes)):
        right = sum(classes.get(label) == true for label, true in zip(labels.tolist(), truth.tolist()))
        print(
            f"{name:>6} samples: {right} of {len(truth)} in their class's cluster ({right / len(truth):.1%})"
        )


if __name__ == "__main__":
    main()
