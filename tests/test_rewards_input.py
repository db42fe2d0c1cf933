"""All kinds of input that rewards take, and what counts of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from text_cases import pairs
from torch import Tensor

from pgest.rewards import (
    bleu,
    bleu_statistics,
    chrf,
    edit_distance,
    error_rate,
    exact_match,
    rouge_l,
    rouge_n,
    shaped,
    token_f1,
)

ALL: tuple[Callable[..., Tensor], ...] = (
    bleu,
    chrf,
    edit_distance,
    exact_match,
    rouge_l,
    rouge_n,
    token_f1,
)
PREFIXES: tuple[Callable[..., Tensor], ...] = (bleu, chrf, edit_distance, error_rate, rouge_l)


@pytest.mark.parametrize("reward", ALL)
def test_ids_score_like_lists(reward: Callable[..., Tensor]) -> None:
    ids = torch.randint(0, 4, (3, 5, 7), generator=torch.Generator().manual_seed(0))
    lengths = torch.randint(0, 8, (3, 5), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(7) < lengths[..., None]
    targets = torch.randint(0, 4, (5, 6), generator=torch.Generator().manual_seed(2))
    want = torch.stack(
        [
            reward(
                [row[:n].tolist() for row, n in zip(ids[s], lengths[s], strict=True)],
                targets.tolist(),
            )
            for s in range(3)
        ]
    )
    assert want.shape == (3, 5)
    assert torch.equal(reward(ids, targets, mask=mask), want)
    assert torch.equal(reward(ids, targets, lengths=lengths), want)
    assert torch.equal(reward(ids.to(torch.int32), targets.tolist(), lengths=lengths), want)
    assert torch.equal(reward(ids.numpy(), targets.numpy(), mask=mask.numpy()), want)
    nested = [list(row[:n]) for row, n in zip(ids[0], lengths[0], strict=True)]  # of 0-d tensors
    assert torch.equal(reward(nested, [tuple(t) for t in targets.tolist()]), want[0])
    # Names for the ids change nothing.
    words = [[f"w{i}" for i in row[:n]] for row, n in zip(ids[0].tolist(), lengths[0], strict=True)]
    if reward is not chrf:  # to which strings are pieces of a text
        spelt = [[f"w{i}" for i in row] for row in targets.tolist()]
        assert torch.equal(reward(words, spelt), want[0])


@pytest.mark.parametrize("reward", ALL)
def test_several_references_as_lists_or_padded(reward: Callable[..., Tensor]) -> None:
    targets = torch.tensor([[[1, 2, 3], [4, 5, 0]], [[6, 0, 0], [7, 8, 9]]])
    lists = [[[1, 2, 3], [4, 5]], [[6], [7, 8, 9]]]
    hypotheses = [[4, 5], [7, 8]]
    masked = reward(hypotheses, targets, reference_mask=targets > 0)
    assert torch.equal(masked, reward(hypotheses, lists))


@pytest.mark.parametrize("reward", ALL)
@pytest.mark.parametrize("keep", [False, True])
def test_eos_ends_hypotheses_and_references(reward: Callable[..., Tensor], keep: bool) -> None:
    ids = torch.tensor([[5, 6, 2, 9, 2], [5, 6, 7, 8, 9], [2, 2, 2, 2, 2]])
    references = torch.tensor([[5, 6, 7, 2], [5, 6, 2, 2], [2, 0, 0, 0]])
    cut = [[5, 6, 2], [5, 6, 7, 8, 9], [2]]
    cut_references = [[5, 6, 7, 2], [5, 6, 2], [2]]
    if not keep:
        cut = [[t for t in row if t != 2] for row in cut]
        cut_references = [[t for t in row if t != 2] for row in cut_references]
    want = reward(cut, cut_references)
    assert torch.equal(reward(ids, references, eos=2, keep_eos=keep), want)
    assert torch.equal(reward(ids.tolist(), references.tolist(), eos=2, keep_eos=keep), want)


def test_a_kept_eos_shows_a_missing_end() -> None:
    assert error_rate([[5, 6]], [[5, 6, 2]], eos=2).item() == 0
    assert error_rate([[5, 6]], [[5, 6, 2]], eos=2, keep_eos=True).item() == pytest.approx(1 / 3)
    words = [["a", "</s>", "b"]]
    assert error_rate(words, [["a"]], eos="</s>").item() == 0


@pytest.mark.parametrize("reward", PREFIXES)
def test_prefixes_stand_at_the_positions_of_their_tokens(reward: Callable[..., Tensor]) -> None:
    ids = torch.tensor([[0, 5, 6, 0, 7, 2, 9]])
    mask = torch.tensor([[False, True, True, False, True, True, True]])
    references = [[5, 6, 7, 8]]
    got = reward(ids, references, mask=mask, eos=2, per_prefix=True)
    parts: list[list[int]] = [[], [5], [5, 6], [5, 6], [5, 6, 7], [5, 6, 7], [5, 6, 7]]
    assert got.shape == (1, 7)
    assert torch.equal(got[0], torch.cat([reward([part], references) for part in parts]))


@pytest.mark.parametrize("reward", PREFIXES)
def test_shaped_rewards_sum_to_the_score(reward: Callable[..., Tensor]) -> None:
    batch = [(h, r) for h, r in pairs(4, 50, longest=40) if h]
    hypotheses, references = [h for h, _ in batch], [r for _, r in batch]
    whole = reward(hypotheses, references, dtype=torch.float64)
    parts = shaped(reward, hypotheses, references, dtype=torch.float64)
    torch.testing.assert_close(parts.sum(-1), whole, rtol=0, atol=1e-12)
    empty = reward([[] for _ in batch], references, dtype=torch.float64)
    parts = shaped(reward, hypotheses, references, from_empty=True, dtype=torch.float64)
    torch.testing.assert_close(parts.sum(-1), whole - empty, rtol=0, atol=1e-12)
    ids, mask = torch.tensor([[[1, 2, 3]], [[1, 3, 9]]]), torch.tensor([[[True, False, True]]] * 2)
    parts = shaped(reward, ids, [[1, 3]], mask=mask, from_empty=True)
    assert parts.shape == (2, 1, 3)
    assert parts[..., 1].tolist() == [[0], [0]]


def test_shaped_rewards_of_text() -> None:
    parts = shaped(chrf, [["the", " cat"], []], ["the cat", "x"], from_empty=True)
    assert parts[0].sum().item() == pytest.approx(100)
    assert parts[1].tolist() == [0, 0]
    parts = shaped(bleu, ["the cat sat"], ["the cat sat"], from_empty=True)
    assert parts.shape == (1, 3)
    assert parts.sum().item() == pytest.approx(100)


def test_numbers_that_are_equal_are_the_same_token() -> None:
    same: list[Any] = [1, 1.0, True, np.int64(1), np.float32(1), torch.tensor(1)]
    assert edit_distance([[x] for x in same], [[1]] * len(same)).tolist() == [0] * len(same)
    big = 2**70
    assert edit_distance([[big, -big, "1"]], [[big, -big, 1]]).tolist() == [1]
    assert edit_distance([[-(2**63), 2**63 - 1]], [[-(2**63), 2**63 - 1]]).tolist() == [0]
    assert edit_distance([[None, (1, 2)]], [[None, (1, 2)]]).tolist() == [0]


@pytest.mark.parametrize("reward", ALL)
def test_empty_batches_keep_their_shape(reward: Callable[..., Tensor]) -> None:
    assert reward([], []).shape == (0,)
    assert reward(torch.zeros(3, 0, 4, dtype=torch.int64), []).shape == (3, 0)
    assert reward(torch.zeros(0, 2, 4, dtype=torch.int64), [[1], [1]]).shape == (0, 2)
    if reward in PREFIXES:
        assert reward(torch.zeros(3, 0, 4, dtype=torch.int64), [], per_prefix=True).shape == (
            3,
            0,
            4,
        )
        assert reward([[], []], [[1], [1]], per_prefix=True).shape == (2, 0)


@pytest.mark.parametrize("reward", ALL)
def test_threads_change_nothing(reward: Callable[..., Tensor]) -> None:
    batch = list(pairs(6, 40)) * 100
    hypotheses, references = [h for h, _ in batch], [r for _, r in batch]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = reward(hypotheses, references)
        torch.set_num_threads(7)
        many = reward(hypotheses, references)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one, many)
    assert torch.equal(one[:40].repeat(100), one)


def test_other_threads_run_meanwhile() -> None:
    """A long score lets another thread count."""
    ids = torch.randint(0, 9, (3000, 200), generator=torch.Generator().manual_seed(0))
    counted, stop = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.is_set():
            counted += 1

    thread = threading.Thread(target=count)
    thread.start()
    before = counted
    edit_distance(ids, ids.roll(1, 0))
    after = counted
    stop.set()
    thread.join()
    assert after > before


def test_arrays_of_strings_are_lists_of_them() -> None:
    text = "Hello, world! It is."
    for reward in (bleu, rouge_l, token_f1):
        whole = reward([text], [[text, "other"]])
        assert torch.equal(reward([text], [np.array([text, "other"])]), whole)
        assert torch.equal(reward(np.array([text]), np.array([text])), reward([text], [text]))
    group: Any = [np.array(["cat"], dtype=object)]
    assert exact_match(["The cat"], group, normalize="squad").item() == 1
    backwards: Any = np.array([[3, 2, 1]])[:, ::-1]
    backwards.flags.writeable = False
    assert edit_distance(backwards, [[1, 2, 3]]).item() == 0


def test_a_batch_that_came_out_empty_has_no_scores() -> None:
    """Whatever was said about its strings."""
    assert bleu([], [], tokenize="13a", lowercase=True).shape == (0,)
    assert exact_match([], [], normalize="squad").shape == (0,)
    assert rouge_l([], [], stem=True).shape == (0,)
    assert chrf([], [], word_order=2, lowercase=True).shape == (0,)
    assert bleu_statistics([], []).shape == (0, 10)
    empty = torch.zeros(0, 2, 3, dtype=torch.int64)
    assert bleu_statistics(empty, [[1], [1]]).shape == (0, 2, 10)


def test_padding_on_the_left_brings_nothing() -> None:
    ids = torch.tensor([[0, 0, 1, 2], [0, 0, 0, 0]])
    parts = shaped(edit_distance, ids, [[1, 2, 3], [1]], mask=ids > 0)
    assert parts.tolist() == [[0, 0, 2, -1], [0, 0, 0, 0]]


def test_long_references_take_memory_of_what_they_hold() -> None:
    """Sets are one for each different token: 200,000 characters are a few megabytes."""
    text = "abcdefghij" * 20_000
    assert edit_distance([text[1:300]], [text]).item() == len(text) - 299
