"""The epsilon bridge: a stack of graph convolutions that reads an auto-encoder's hidden states."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphclust._messages import shown
from graphclust.nn.adjacency import Adjacency
from graphclust.nn.convolutions import Convolution, layer_parts, make_convolution


class GraphFusion(nn.Module):
    """Graph branch of SDCN (Bo et al. 2020) and VGDCN.

    ``Z(1) = relu(conv_1(X))``, then for every later layer
    ``Z(l) = relu(conv_l((1 - eps_l) Z(l-1) + eps_l H(l-1)))``; the last layer maps to K and has no ReLU (its softmax
    is the cluster probability Z_G). H(l) are the encoder's hidden states, the latent code the last of them.

    Parameters
    ----------
    widths : sequence of int
        d, the encoder's hidden widths, its latent width, K.
    conv : {"gcn", "gat", "sage", "gin"} or callable, default="gcn"
        The convolution, see `make_convolution`.
    epsilon : float, sequence of float or "learn", default=0.7
        Share of the encoder's state in the mixture: one number, one for each of the ``len(widths) - 2`` bridges, or
        learnt (a logit for each bridge, from 0.5). 0 is a plain deep GCN, 1 takes the encoder's states alone.
    """

    def __init__(
        self,
        widths: Sequence[int],
        conv: str | Convolution = "gcn",
        epsilon: float | Sequence[float] | str = 0.7,
    ) -> None:
        super().__init__()
        if len(widths) < 3:
            raise ValueError(f"widths is {list(widths)}, it must hold d, at least one hidden width, and K")
        self.widths = tuple(widths)
        self.layers = nn.ModuleList(
            make_convolution(conv, a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.epsilon_logits: nn.Parameter | None = None
        self.register_buffer("fixed_epsilon", torch.zeros(len(widths) - 2))
        values = check_epsilon(epsilon, len(widths) - 2)
        if values is None:
            self.epsilon_logits = nn.Parameter(torch.zeros(len(widths) - 2))
        else:
            self.fixed_epsilon = torch.tensor(values)

    @property
    def epsilon(self) -> Tensor:
        """Shares eps_l of the bridges, [number of layers - 1]."""
        return self.fixed_epsilon if self.epsilon_logits is None else self.epsilon_logits.sigmoid()

    def mix(self, layer: int, z: Tensor, state: Tensor) -> Tensor:
        """Input of convolution `layer` (from 1): ``(1 - eps) z + eps H``."""
        return torch.lerp(z.float(), state.float(), self.epsilon[layer - 1])

    def step(self, layer: int, z: Tensor, adjacency: Adjacency, *, constant: bool = False) -> Tensor:
        """One convolution with its activation (none after the last)."""
        out = self.layers[layer](z, adjacency, constant=constant)
        return out.float() if layer == len(self.layers) - 1 else out.relu()

    def parts(self, adjacency: Adjacency, rows: int | None) -> list[Adjacency]:
        """What each convolution reads, for the logits of the first `rows` rows; all of it for None."""
        return layer_parts(list(self.layers), adjacency, rows)

    def forward(
        self, x: Tensor, states: Sequence[Tensor], adjacency: Adjacency, rows: int | None = None
    ) -> Tensor:
        """Logits of the cluster probabilities.

        Parameters
        ----------
        x : Tensor [N, d]
            Features.
        states : sequence of Tensor
            H(1), ..., H(L) and the latent code, one for each bridge; of as many rows as the second convolution reads
            (``parts(adjacency, rows)[1]``), or more.
        adjacency : Adjacency
            The graph, or the sampled part of it that the batch covers.
        rows : int, optional
            Logits of the first rows alone: of a sampled batch each convolution reads what they depend on, no more.

        Returns
        -------
        Tensor [N, K], or [rows, K]
        """
        if len(states) != len(self.layers) - 1:
            raise ValueError(f"{len(states)} encoder states were given for {len(self.layers) - 1} bridges")
        parts = self.parts(adjacency, rows)
        z = self.step(0, x[: parts[0].num_nodes], parts[0], constant=True)
        for layer, state in enumerate(states, start=1):
            n_read = parts[layer].num_nodes
            z = self.step(layer, self.mix(layer, z[:n_read], state[:n_read]), parts[layer])
        return z if rows is None else z[:rows]


def check_epsilon(epsilon: float | Sequence[float] | str, n_bridges: int) -> list[float] | None:
    """Shares of the bridges as a list, None for "learn"; ValueError outside [0, 1] or for a wrong number of them."""
    if isinstance(epsilon, str):
        if epsilon != "learn":
            raise ValueError(
                f"epsilon is {shown(epsilon)}, it must be a number in [0, 1], a list of them or 'learn'"
            )
        return None
    try:
        # Any real number: NumPy's float32 is no float.
        shares: Any = [epsilon] * n_bridges if isinstance(epsilon, numbers.Real) else epsilon
        values = [float(share) for share in shares]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"epsilon={shown(epsilon)} must be a number in [0, 1], a list of them or 'learn'"
        ) from error
    if len(values) != n_bridges:
        raise ValueError(
            f"epsilon holds {len(values)} numbers, it must hold one for each of the {n_bridges} bridges"
        )
    for value in values:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"epsilon is {value}, it must lie in [0, 1]")
    return values
