"""One training loop for every task: configuration, progress, record and plots."""

from pgest.runs.config import Config, configure
from pgest.runs.loop import Figures, History, Learner, train
from pgest.runs.policy import Batch, PolicyGradient, SequenceTask
from pgest.runs.run import Evaluation, Task, run

__all__ = [
    "Batch",
    "Config",
    "Evaluation",
    "Figures",
    "History",
    "Learner",
    "PolicyGradient",
    "SequenceTask",
    "Task",
    "configure",
    "run",
    "train",
]
