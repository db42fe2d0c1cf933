"""A run that was killed or interrupted ends with the numbers of one that was not."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import Copy, copy_task

from pgest.errors import InputError
from pgest.runs import Clock, Figures, History, Interrupted, run, train
from pgest.runs.files import load_tensors, locked, save_tensors, write_atomically, write_text
from pgest.runs.loop import BEST, CHECKPOINT

for package in ("tqdm", "safetensors", "matplotlib"):
    pytest.importorskip(package)
pytestmark = pytest.mark.usefixtures("one_thread", "ctrl_c")

SETTINGS = {"steps": 60, "evaluate_every": 20, "weight_decay": 0.1, "entropy_coef": 0.1}

PROGRAM = """
import sys, time, torch
from pathlib import Path
from toy import copy_task
from pgest.runs import train

torch.set_num_threads(1)
task = copy_task(steps=60, evaluate_every=20, weight_decay=0.1, entropy_coef=0.1)
draw = task.reward
def slow(*args):
    time.sleep(0.02)
    return draw(*args)
task.reward = slow
train(task.learner, task.config, Path(sys.argv[1]), bar=False)
"""


def uninterrupted(folder: Path) -> History:
    folder.mkdir()
    task = copy_task(**SETTINGS)
    return train(task.learner, task.config, folder, bar=False)


def same(one: History, other: History) -> bool:
    return (one.updates, one.evaluations) == (other.updates, other.evaluations)


def test_a_killed_run_ends_with_the_same_numbers(tmp_path: Path) -> None:
    expected = uninterrupted(tmp_path / "whole")
    folder = tmp_path / "killed"
    folder.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests", *sys.path])}
    for seconds_after_checkpoint in (0.1, 0.25):
        before = (folder / CHECKPOINT).stat().st_mtime_ns if (folder / CHECKPOINT).exists() else 0
        child = subprocess.Popen(command, env=environment)
        deadline = time.monotonic() + 60
        while not (folder / CHECKPOINT).exists() or (
            (folder / CHECKPOINT).stat().st_mtime_ns == before
        ):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(seconds_after_checkpoint)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    task = copy_task(**SETTINGS)
    done = train(task.learner, task.config, folder, bar=False)
    assert same(done, expected)
    assert_equal_tensors(tmp_path / "whole" / BEST, folder / BEST)


def assert_equal_tensors(one: Path, other: Path) -> None:
    first, second = load_tensors(one)[0], load_tensors(other)[0]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


class Stopping:
    """A task's learner that asks to stop, as Ctrl-C does, during one of its updates."""

    def __init__(self, task: Copy, update: int, number: int) -> None:
        self.inner, self.update, self.number = task.learner, update, number
        self.model, self.metric = task.model, task.metric
        self.evaluate = task.learner.evaluate

    def loss(self, generator: torch.Generator, clock: Clock) -> tuple[Tensor, Figures]:
        self.update -= 1
        if self.update == 0:
            signal.raise_signal(self.number)
        return self.inner.loss(generator, clock)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("update", [1, 33, 60])
def test_an_interrupted_run_goes_on(tmp_path: Path, update: int, number: int) -> None:
    expected = uninterrupted(tmp_path / "whole")
    task = copy_task(**SETTINGS)
    folder = tmp_path / "stopped"
    folder.mkdir()
    handler = signal.getsignal(number)
    if update == 60:  # the last: nothing is left to stop
        assert same(train(Stopping(task, 60, number), task.config, folder, bar=False), expected)
    else:
        with pytest.raises(Interrupted, match=f"stopped before update {update} of 60"):
            train(Stopping(task, update, number), task.config, folder, bar=False)
    assert signal.getsignal(number) == handler
    task = copy_task(**SETTINGS)
    assert same(train(task.learner, task.config, folder, bar=False), expected)


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    class Impatient(Stopping):
        def loss(self, generator: torch.Generator, clock: Clock) -> tuple[Tensor, Figures]:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the second one was ignored")

    task = copy_task(**SETTINGS)
    with pytest.raises(KeyboardInterrupt) as stop:
        train(Impatient(task, 1, signal.SIGINT), task.config, tmp_path, bar=False)
    assert not isinstance(stop.value, Interrupted)


def test_training_in_another_thread_works(tmp_path: Path) -> None:
    task = copy_task(**SETTINGS)
    found: list[History] = []
    thread = threading.Thread(
        target=lambda: found.append(train(task.learner, task.config, tmp_path, bar=False))
    )
    thread.start()
    thread.join()
    assert len(found[0].updates) == 60


def test_run_says_how_to_go_on_and_does(tmp_path: Path) -> None:
    task = copy_task(**SETTINGS, output=tmp_path / "runs")
    learner = task.learner
    task.learner = Stopping(task, 30, signal.SIGINT)
    with pytest.raises(Interrupted, match=r"go on with: pgest run copy --resume (\S+)"):
        run(task, task.config, bar=False)
    (folder,) = (tmp_path / "runs").iterdir()
    task = copy_task(**SETTINGS, output=tmp_path / "runs")
    assert run(task, task.config, resume=folder, bar=False) == folder
    record = json.loads((folder / "record.json").read_text())
    expected = uninterrupted(tmp_path / "whole")
    assert record["history"]["updates"] == expected.updates
    assert learner.metric.name in record["after"]["figures"]
    with pytest.raises(InputError, match=r"is finished, see its report\.txt"):
        run(task, task.config, resume=folder, bar=False)


def damaged(path: Path, how: str) -> None:
    if how == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "other model":
        tensors, _ = load_tensors(path)
        tensors["model.encoder.weight_ih"] = torch.zeros(1)
        save_tensors(path, tensors)
    else:
        save_tensors(path, {"generator": torch.zeros(1)})


@pytest.mark.parametrize("how", ["cut", "empty", "other model", "no checkpoint"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, how: str) -> None:
    task = copy_task(steps=2, warmup=0, evaluate_every=1)
    train(task.learner, task.config, tmp_path, bar=False)
    damaged(tmp_path / CHECKPOINT, how)
    with pytest.raises(InputError, match=r"checkpoint\.safetensors must be a"):
        train(task.learner, task.config, tmp_path, bar=False)


@pytest.mark.parametrize("settings", [{"seed": 7}, {"steps": 1}, {"learning_rate": 0.5}])
def test_a_checkpoint_of_other_settings_is_refused(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    task = copy_task(steps=2, warmup=0, evaluate_every=1)
    train(task.learner, task.config, tmp_path, bar=False)
    (name,) = settings
    task = copy_task(**{"steps": 2, "warmup": 0, "evaluate_every": 1, **settings})
    with pytest.raises(InputError, match=f"same settings, got one with {name} "):
        train(task.learner, task.config, tmp_path, bar=False)
    # What has no influence on the numbers may change.
    task = copy_task(steps=2, warmup=0, evaluate_every=1, output=tmp_path / "x", threads=1)
    train(task.learner, task.config, tmp_path, bar=False)


def test_other_weights_to_start_from_are_refused(tmp_path: Path) -> None:
    task = copy_task(**SETTINGS, output=tmp_path)
    task.learner = Stopping(task, 30, signal.SIGINT)
    with pytest.raises(Interrupted):
        run(task, task.config, bar=False)
    (folder,) = tmp_path.iterdir()
    task = copy_task(**SETTINGS, output=tmp_path)
    with torch.no_grad():
        task.model.output.bias.add_(1)
    with pytest.raises(InputError, match=r"must start from \S+, got other weights"):
        run(task, task.config, resume=folder, bar=False)


def test_ctrl_c_outside_the_loop_says_how_to_go_on(tmp_path: Path) -> None:
    task = copy_task(**SETTINGS, output=tmp_path / "with space")
    calls: list[int] = []
    test = task.test

    def stopped() -> Any:
        calls.append(1)
        if len(calls) == 2:  # after training
            raise KeyboardInterrupt
        return test()

    task.test = stopped  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match=r"stopped; go on with: pgest run copy --resume '.*space"):
        run(task, task.config, bar=False)
    (folder,) = (tmp_path / "with space").iterdir()
    task = copy_task(**SETTINGS, output=tmp_path / "with space")
    assert run(task, task.config, resume=folder, bar=False) == folder


def test_a_folder_serves_one_run_at_a_time_and_is_swept(tmp_path: Path) -> None:
    left = tmp_path / ".checkpoint.123.tmp.safetensors"
    left.write_bytes(b"half")
    with locked(tmp_path):
        assert not left.exists()
        task = copy_task(**SETTINGS)
        with pytest.raises(InputError, match="must not be in use, but another run holds it"):
            train(task.learner, task.config, tmp_path, bar=False)


def test_an_output_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    task = copy_task(**SETTINGS, output=tmp_path / "file" / "runs")
    with pytest.raises(InputError, match="output must be a folder that can be written"):
        run(task, task.config, bar=False)


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_of_tensors_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a whole safetensors file"):
        load_tensors(tmp_path / "none.safetensors")


def test_a_resumed_run_keeps_its_curves(tmp_path: Path) -> None:
    events: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = {**SETTINGS, "tensorboard": True}
    task = copy_task(**settings)
    with pytest.raises(Interrupted):
        train(Stopping(task, 41, signal.SIGINT), task.config, tmp_path, bar=False)
    task = copy_task(**settings)
    train(task.learner, task.config, tmp_path, bar=False)
    found = events.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [event.step for event in found.Scalars("held-out/exact")] == [0, 20, 40, 60]
    assert [event.step for event in found.Scalars("update/reward")] == list(range(60))
