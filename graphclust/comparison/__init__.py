"""Methods side by side on one data set: every run in a process of its own, every score on the same footing."""

from graphclust.comparison.comparison import Comparison, compare
from graphclust.comparison.contenders import find_method

__all__ = ["Comparison", "compare", "find_method"]
