"""One training loop for every task: configuration, progress, checkpoints, record and plots."""

from pgest.runs.config import Config, load_config, save_config
from pgest.runs.flags import Chosen, configure
from pgest.runs.history import Clock, Evaluation, Figures, History, Metric
from pgest.runs.interrupts import Interrupted
from pgest.runs.loop import Learner, train
from pgest.runs.policy import PolicyGradient
from pgest.runs.run import START, Task, run
from pgest.runs.sequences import Batch, SequenceConfig, SequenceTask
from pgest.runs.supervised import CrossEntropy

__all__ = [
    "START",
    "Batch",
    "Chosen",
    "Clock",
    "Config",
    "CrossEntropy",
    "Evaluation",
    "Figures",
    "History",
    "Interrupted",
    "Learner",
    "Metric",
    "PolicyGradient",
    "SequenceConfig",
    "SequenceTask",
    "Task",
    "configure",
    "load_config",
    "run",
    "save_config",
    "train",
]
