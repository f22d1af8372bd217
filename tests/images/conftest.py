"""No test leaves features in the user's own cache."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def private_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the features that are kept without being asked for."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GRAPHCLUST_CACHE", str(folder))
    return folder
