"""Which methods are compared, by which names, with which parameters."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sklearn.base import BaseEstimator

from graphclust import __version__
from graphclust._messages import meant
from graphclust.methods import METHODS
from graphclust.methods.files import plain_parameters


@dataclass(frozen=True)
class Contender:
    """One row of the comparison.

    Attributes
    ----------
    name : str
        Of the row.
    method : str
        Of the class, a key of `graphclust.methods.METHODS`.
    parameters : dict
        What its constructor gets, without the seed.
    """

    name: str
    method: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def with_seed(self, seed: int) -> dict[str, Any]:
        """Parameters of the run with that seed."""
        return {**self.parameters, **({"random_state": seed} if self.is_random else {})}

    @property
    def is_random(self) -> bool:
        """Whether the method has a seed; one run is enough otherwise."""
        return "random_state" in inspect.signature(METHODS[self.method]).parameters

    def run_key(self, digest: str, seed: int) -> str:
        """Names a run by all that its result depends on: data, method, every parameter, seed, version."""
        estimator = METHODS[self.method](**self.with_seed(seed))
        everything = {
            "data": digest,
            "method": self.method,
            "parameters": {k: v for k, v in plain_parameters(estimator).items() if k != "verbose"},
            "seed": seed,
            "version": __version__,
        }
        text = json.dumps(everything, sort_keys=True, default=str)
        return f"{self.method}-{seed}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def find_method(name: str) -> Any:
    """The estimator of that name, in any case.

    Raises
    ------
    ValueError
        When there is none; the message names the nearest one, and all.
    """
    by_lower = {known.lower(): method for known, method in METHODS.items()}
    if str(name).lower() in by_lower:
        return by_lower[str(name).lower()]
    raise ValueError(
        f"there is no method {name!r}: {meant(name, METHODS)}The methods are {', '.join(METHODS)}"
    )


def contenders(methods: Any, n_clusters: int, parameters: Mapping[str, Any] | None = None) -> list[Contender]:
    """The rows of a comparison.

    Parameters
    ----------
    methods : "all", str, estimator, sequence of these, or mapping of a row's name to one of them
        A name stands for the method with its defaults. Names with commas between them are several.
    n_clusters : int
        K of all of them.
    parameters : mapping, optional
        ``{"epochs": 50}`` sets a parameter of all methods that have it, ``{"VGDCN.epochs": 50}`` of one.

    Raises
    ------
    ValueError
        For an unknown method, a parameter that none of them has, or two rows of one name.
    TypeError
        For an estimator of another library, or one with a parameter that cannot be written as text.
    """
    rows = [_contender(name, given) for name, given in _named(methods)]
    if not rows:
        raise ValueError(f"no method was named: name some of {', '.join(METHODS)}")
    doubled = {row.name for row in rows if sum(row.name == other.name for other in rows) > 1}
    if doubled:
        raise ValueError(
            f"{', '.join(sorted(doubled))} is there twice: give the rows names of their own, "
            "methods={'a': VGDCN(...), 'b': VGDCN(...)}"
        )
    common, own = _split(parameters or {}, rows)
    complete = []
    for row in rows:
        known = inspect.signature(METHODS[row.method]).parameters
        wanted = {**row.parameters, "n_clusters": n_clusters, **common, **own.get(row.method, {})}
        complete.append(Contender(row.name, row.method, {k: v for k, v in wanted.items() if k in known}))
    return complete


def _named(methods: Any) -> Iterable[tuple[str | None, Any]]:
    if isinstance(methods, Mapping):
        return list(methods.items())
    if isinstance(methods, (str, BaseEstimator)) or inspect.isclass(methods):
        methods = [methods]
    found: list[tuple[str | None, Any]] = []
    for given in methods:
        if not isinstance(given, str):
            found.append((None, given))
            continue
        for part in given.replace(",", " ").split():
            found += [(None, name) for name in METHODS] if part.lower() == "all" else [(None, part)]
    return found


def _contender(name: str | None, given: Any) -> Contender:
    if isinstance(given, str):
        method = find_method(given).__name__
        return Contender(name or method, method)
    kind = given if inspect.isclass(given) else type(given)
    method = kind.__name__
    if METHODS.get(method) is not kind:
        raise TypeError(f"{method} is no method of graphclust: give one of {', '.join(METHODS)}")
    if inspect.isclass(given):
        return Contender(name or method, method)
    lost = [k for k, v in given.get_params(deep=False).items() if callable(v)]
    if lost:
        raise TypeError(
            f"{lost[0]} of {method} is a callable, which no other process can be given: compare named ones"
        )
    return Contender(name or method, method, plain_parameters(given))


def _split(
    parameters: Mapping[str, Any], rows: list[Contender]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Parameters of all methods, and those of one, by its name."""
    compared = {row.method: inspect.signature(METHODS[row.method]).parameters for row in rows}
    common: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    for setting, value in parameters.items():
        prefix, dot, name = setting.rpartition(".")
        if name in {"n_clusters", "random_state"}:
            raise ValueError(f"{setting} is the same for all methods: it is set by n_clusters and seeds")
        if not dot:
            if not any(name in known for known in compared.values()):
                raise ValueError(f"none of {', '.join(compared)} has a parameter {name!r}")
            common[name] = value
            continue
        method = find_method(prefix).__name__
        if method not in compared:
            raise ValueError(f"{setting} is set, and {method} is not compared; it is {', '.join(compared)}")
        if name not in compared[method]:
            raise ValueError(
                f"{method} has no parameter {name!r}; it has {', '.join(p for p in compared[method])}"
            )
        own.setdefault(method, {})[name] = value
    return common, own
