import io
import sys

import pytest

from graphclust._progress import tracked


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("steps", [[1, 2, 3], iter([1, 2, 3]), range(1, 4)])
def test_the_steps_go_by_below_a_bar(steps, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(tracked(steps, "Counting sheep")) == [1, 2, 3]
    assert "Counting sheep" in sys.stderr.getvalue() and "100%" in sys.stderr.getvalue()


@pytest.mark.parametrize(("shown", "stream"), [(False, Terminal), (True, io.StringIO)])
def test_no_bar_unless_asked_for_and_never_in_a_log(shown, stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(tracked([1, 2], "Counting sheep", shown)) == [1, 2]
    assert sys.stderr.getvalue() == ""
