"""Problems to compare estimators on, and the outcomes of their draws."""

from pgest.comparison.problems import problems

__all__ = ["problems"]
