"""Functions of one sample: here and in processes, in order, each failure named, nothing hangs."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pgest.rewards import FailedSamples, PerSample, per_sample
from pgest.rewards.workers import LARGEST_CHUNK, Workers, _Worker


def act(hypothesis: Any, references: list[Any]) -> Any:
    """Do what the hypothesis says; otherwise its number, and a hundredth of the references'."""
    if hypothesis == "raise":
        raise ValueError("no digits")
    if hypothesis == "leave":
        os._exit(3)
    if hypothesis == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if hypothesis == "hang":
        time.sleep(600)
    if hypothesis == "word":
        return "1.0"
    if hypothesis == "where":
        return os.getpid()
    return float(hypothesis) + 0.01 * len(references)


def total(hypothesis: list[int], references: list[list[int]]) -> np.float64:
    return np.float64(sum(hypothesis) + 100 * sum(map(sum, references)))


def refuse(text: str) -> str:
    raise LookupError(text)


class Unloadable(str):
    """Raises an exception where it arrives."""

    def __reduce__(self) -> Any:
        return refuse, (str(self),)


class Deadly(str):
    """Ends the process where it arrives."""

    def __reduce__(self) -> Any:
        return os._exit, (7,)


@pytest.fixture(scope="module")
def pool() -> Iterator[PerSample]:
    with per_sample(act, processes=2, timeout=2) as reward:
        yield reward


def test_scores_come_in_order(pool: PerSample) -> None:
    count = 5 * LARGEST_CHUNK + 3
    texts = [str(i) for i in range(count)]
    references = [["r"] * (1 + i % 3) for i in range(count)]
    scores = pool(texts, references)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, per_sample(act)(texts, references))
    assert scores[:3].tolist() == pytest.approx([0.01, 1.02, 2.03])
    assert pool([], []).shape == (0,)
    assert pool(["7"], ["r"]).tolist() == pytest.approx([7.01])


def test_processes_are_kept_and_are_not_this_one(pool: PerSample) -> None:
    here = os.getpid()
    first, second = pool(["where"] * 64, ["r"] * 64), pool(["where"] * 64, ["r"] * 64)
    workers = set(first.tolist()) | set(second.tolist())
    assert len(workers) <= 2
    assert float(here) not in workers


def test_who_raises_dies_or_hangs_is_named_and_the_rest_is_scored(pool: PerSample) -> None:
    texts = [str(i) for i in range(40)]
    for i, what in ((3, "raise"), (4, "leave"), (11, "crash"), (20, "hang"), (38, "word")):
        texts[i] = what
    began = time.monotonic()
    with pytest.raises(FailedSamples) as caught:
        pool(texts, ["r"] * 40)
    assert time.monotonic() - began < 60
    error = caught.value
    assert error.failures == {
        3: "ValueError: no digits",
        4: "its process ended with exit code 3",
        11: "its process was killed by SIGSEGV",
        20: "took longer than timeout=2 s",
        38: "TypeError: f must return a number, got '1.0'",
    }
    assert pool.failures == error.failures
    expected = torch.tensor([float("nan") if not t.isdigit() else int(t) + 0.01 for t in texts])
    assert torch.equal(error.scores.isnan(), expected.isnan())
    assert torch.allclose(error.scores, expected, equal_nan=True)
    assert "5 of 40 samples could not be scored\n  3: ValueError: no digits" in str(error)
    assert 'raise ValueError("no digits")' in str(error)  # the traceback
    assert pool(["1"], ["r"]).tolist() == pytest.approx([1.01])  # it goes on
    assert pool.failures == {}


def test_a_sample_that_does_not_arrive_is_named_alone(pool: PerSample) -> None:
    texts = ["1", Unloadable("bad"), "2", Deadly("worse"), *map(str, range(3, 40))]
    with pytest.raises(FailedSamples) as caught:
        pool(texts, ["r"] * len(texts))
    assert caught.value.failures == {
        1: "TypeError: it cannot be loaded in another process: LookupError: bad",
        3: "its process ended with exit code 7",
    }
    assert caught.value.scores.isnan().sum() == 2


@pytest.mark.parametrize("times", [1, 20])
def test_processes_that_die_before_a_chunk_are_not_replaced_for_ever(
    pool: PerSample, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    give, killed = _Worker.give, 0

    def doomed(self: _Worker, chunk: list[int], samples: list[bytes]) -> None:
        nonlocal killed
        assert killed < 20
        if chunk == [2, 3] and killed < times:
            if not self.loaded:
                self._ours.poll(60)
                self.receive()  # that it is ready
            self._process.kill()
            self._process.join()
            killed += 1
        give(self, chunk, samples)

    monkeypatch.setattr(_Worker, "give", doomed)
    texts = [str(i) for i in range(16)]  # in chunks of 2
    if times == 1:  # which is no fault of the chunk's
        assert not pool(texts, ["r"] * 16).isnan().any()
        return
    with pytest.raises(FailedSamples) as caught:
        pool(texts, ["r"] * 16)
    assert caught.value.failures == dict.fromkeys([2, 3], "its process was killed by SIGKILL")
    assert killed == 2


def test_calls_of_threads_take_turns(pool: PerSample) -> None:
    wrong: list[Any] = []

    def call(number: int) -> None:
        try:
            for _ in range(5):
                scores = pool([str(number)] * (30 + number), ["r"] * (30 + number))
                if not torch.equal(scores, torch.full((30 + number,), number + 0.01)):
                    wrong.append(scores)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_the_error_can_be_copied_and_sent(again: Any) -> None:
    with pytest.raises(FailedSamples) as caught:
        per_sample(act)(["1", "raise"], ["r"] * 2)
    error = caught.value
    vars(error)["step"] = 7
    twin = again(error)
    assert type(twin) is FailedSamples
    assert str(twin) == str(error)
    assert (twin.failures, twin.trace, vars(twin)["step"]) == (error.failures, error.trace, 7)
    assert torch.allclose(twin.scores, error.scores, equal_nan=True)


def test_ctrl_c_leaves_no_process_at_work(pool: PerSample, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Workers) -> list[Any]:
        raise KeyboardInterrupt

    (worker,) = set(pool(["where"], ["r"]).int().tolist())
    with monkeypatch.context() as patch:
        patch.setattr(Workers, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool(["hang"] * 4, ["r"] * 4)
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert pool(["1"], ["r"]).tolist() == pytest.approx([1.01])


def test_closing_ends_the_processes_and_a_call_starts_new_ones() -> None:
    with per_sample(act, processes=1) as reward:
        (worker,) = reward(["where"], ["r"]).int().tolist()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    reward.close()
    assert reward(["1"], ["r"]).tolist() == pytest.approx([1.01])
    reward.close()


def test_failures_of_samples_have_an_index_for_each_dimension() -> None:
    ids = torch.arange(6).reshape(3, 2, 1)

    def odd(hypothesis: list[int], references: list[list[int]]) -> float:
        return 1 / (hypothesis[0] % 5)

    with pytest.raises(
        FailedSamples, match=r"2 of 6 .*\n  \(0, 0\), \(2, 1\): ZeroDivis"
    ) as caught:
        per_sample(odd)(ids, [[0], [0]])
    assert caught.value.scores.shape == (3, 2)
    assert set(caught.value.failures) == {(0, 0), (2, 1)}


def test_only_what_counts_is_passed() -> None:
    ids = torch.tensor([[[1, 2, 9], [3, 9, 4]], [[9, 1, 1], [1, 1, 1]]])
    scores = per_sample(total)(ids, torch.tensor([[1, 9], [2, 2]]), eos=9)
    assert scores.tolist() == [[103, 403], [100, 403]]
    assert per_sample(total)(ids, [[1], [2]], mask=ids != 9).tolist() == [[103, 207], [102, 203]]


def test_nan_in_place_of_an_error_warns_once() -> None:
    reward = per_sample(act, on_error="nan")
    with pytest.warns(RuntimeWarning, match="1 of 2 samples could not be scored"):
        scores = reward(["raise", "1"], ["r"] * 2)
    assert scores.isnan().tolist() == [True, False]
    assert reward.failures == {0: "ValueError: no digits"}
    assert reward(["2", "raise"], ["r"] * 2).isnan().tolist() == [False, True]
    assert reward.failures == {1: "ValueError: no digits"}


@pytest.mark.parametrize(
    "value", [True, 1, np.float32(1), np.int64(1), np.bool_(True), torch.ones(1)]
)
def test_numbers_of_all_kinds_are_numbers(value: Any) -> None:
    assert per_sample(lambda h, r: value)(["a"], ["a"]).tolist() == [1]


@pytest.mark.parametrize("value", [None, "1", 1j, torch.ones(2), [1.0]])
def test_other_results_are_failures(value: Any) -> None:
    with pytest.raises(FailedSamples, match="TypeError: f must return a number, got"):
        per_sample(lambda h, r: value)(["a"], ["a"])


def test_bad_use_is_named() -> None:
    with pytest.raises(
        TypeError, match=r"f must be picklable to reach other processes \(a function"
    ):
        per_sample(lambda h, r: 1, processes=1)
    with per_sample(act, processes=1) as reward:
        thread = (x for x in "ab")
        with pytest.raises(TypeError, match="hypotheses and references must be picklable"):
            reward([[thread]], [[["a"]]])
    with pytest.raises(TypeError, match="f must be a function"):
        per_sample("act")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="processes must be at least 0, got -1"):
        per_sample(act, processes=-1)
    with pytest.raises(ValueError, match="timeout must be None without processes"):
        per_sample(act, timeout=1)
    with pytest.raises(ValueError, match="timeout must be a positive number of seconds, got 0"):
        per_sample(act, processes=1, timeout=0)
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'nan', got 'skip'"):
        per_sample(act, on_error="skip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="per_prefix must be left out with per_sample"):
        per_sample(act)(["1"], ["1"], per_prefix=True)


def test_what_other_processes_cannot_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_here")
    exec("def f(hypothesis, references): return 1", vars(module))
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(RuntimeError, match="f cannot be loaded in another process: ModuleNotFound"):
        per_sample(module.f, processes=1)(["a"], ["a"])
