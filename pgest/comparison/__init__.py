"""Which estimator to use: bias, variance and cost of all that apply, on the user's own problem."""

from pgest.comparison.compare import compare
from pgest.comparison.figures import Comparison, Figures
from pgest.comparison.plot import plot
from pgest.comparison.problems import problems

__all__ = ["Comparison", "Figures", "compare", "plot", "problems"]
