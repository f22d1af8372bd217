"""The data sets that :mod:`graphclust.datasets` knows: files, classes, public addresses and checksums."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageFile:
    """A data set of equally large images: its local file, and where OpenML has the same."""

    title: str
    shape: tuple[int, int, int]
    white: int  # the stored value of a pixel that is 1.0
    class_names: tuple[str, ...]
    openml_id: int
    first_row: int = 0  # of the OpenML data set
    file: str | None = None
    first_row_of_file: int = 0
    images_sha256: str = ""
    labels_sha256: str = ""


DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Of images and labels, all 70,000.
FASHION_SHA256 = (
    "0fbbfcb392782b3b702472ead3688778e1509e8cf40f5c24d9d3303618b193ab",
    "8ab940a680640f36c0bf1d2549cb2f3b3d4068c12547116cc7b1161b1d26663d",
)

IMAGE_FILES = {
    "usps": ImageFile(
        title="USPS",
        shape=(9298, 16, 16),
        white=2000,
        class_names=DIGITS,
        openml_id=41082,
        file="usps.npz",
        images_sha256="1c5d862b0aef47f4ad01557075267f81d610442ad3cbdaab548649ca5b80942b",
        labels_sha256="23d374427c9e1a0074b0b6f6d9ced2b877e9fe72adc27db773fba947c93ea3bd",
    ),
    "mnist_test": ImageFile(
        title="MNIST, test part",
        shape=(10000, 28, 28),
        white=255,
        class_names=DIGITS,
        openml_id=554,
        first_row=60000,
        file="mnist_test.npz",
        images_sha256="6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        labels_sha256="ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
    "fashion_mnist": ImageFile(
        title="Fashion-MNIST",
        shape=(70000, 28, 28),
        white=255,
        class_names=CLOTHES,
        openml_id=40996,
        file="fashion_mnist.npz",
        images_sha256=FASHION_SHA256[0],
        labels_sha256=FASHION_SHA256[1],
    ),
    "fashion_mnist_test": ImageFile(
        title="Fashion-MNIST, test part",
        shape=(10000, 28, 28),
        white=255,
        class_names=CLOTHES,
        openml_id=40996,
        first_row=60000,
        file="fashion_mnist.npz",
        first_row_of_file=60000,
        images_sha256=FASHION_SHA256[0],
        labels_sha256=FASHION_SHA256[1],
    ),
    "mnist": ImageFile(title="MNIST", shape=(70000, 28, 28), white=255, class_names=DIGITS, openml_id=554),
}

# name -> (PyG's name, classes in the order of the files' columns, checksum of the eight files)
CITATIONS = {
    "cora": (
        "Cora",
        (
            "Theory",
            "Reinforcement learning",
            "Genetic algorithms",
            "Neural networks",
            "Probabilistic methods",
            "Case based",
            "Rule learning",
        ),
        "3cab6c581dd21a78f0377cbd3208832f338e2af34e261e526a9acb7e3a1ca773",
    ),
    "citeseer": (
        "CiteSeer",
        (
            "AI",
            "Machine learning",
            "Information retrieval",
            "Databases",
            "Agents",
            "Human-computer interaction",
        ),
        "a47538c1db517aaa3c15546d2f182c7b0720bcadf51a7fd740e955c8c1216943",
    ),
}
CITATION_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")

LEAVES_SHA256 = "755fcebc14f169e0d15d2214c1842589ef15ca1e1e12a0a4db4afe20145a624b"
