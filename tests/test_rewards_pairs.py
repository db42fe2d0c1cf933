"""Hypotheses and references of every kind, read as what counts of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pgest.rewards.pairs import pairs_of


def test_pairs_of_every_kind_hold_what_counts() -> None:
    ids = torch.tensor([[[5, 2, 6]], [[7, 8, 9]]])
    assert pairs_of(ids, torch.tensor([[4, 2, 2]]), eos=2) == (
        [[5], [7, 8, 9]],
        [[[4]]],
        (2, 1),
    )
    assert pairs_of(ids, [[4]], lengths=torch.tensor([[1], [0]])).hypotheses == [[5], []]
    several = torch.tensor([[[1, 2], [3, 0]]])
    assert pairs_of(ids[0], several, reference_mask=several > 0).references == [[[1, 2], [3]]]
    assert pairs_of(["a b"], [["a", "b c"]]).references == [["a", "b c"]]
    assert pairs_of([["a", "b"]], [["a", "b"]]).references == [[["a", "b"]]]
    assert pairs_of([["a"]], [[["a", "b"], []]]).references == [[["a", "b"], []]]
    assert pairs_of([[1, 2]], [torch.tensor([1, 2])]).references == [[[1, 2]]]
    assert pairs_of([[1]], [np.array([[1, 2], [3, 4]])]).references == [[[1, 2], [3, 4]]]
    assert pairs_of([[1]], [np.array([1, 2])]).references == [[[1, 2]]]
    assert pairs_of([[]], [[]]) == ([[]], [[[]]], (1,))
    assert pairs_of([["a", "</s>", "b"]], [["c", "</s>"]], eos="</s>", keep_eos=True) == (
        [["a", "</s>"]],
        [[["c", "</s>"]]],
        (1,),
    )


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((["a"], ["a", "b"]), {}, "references must have 1 items, one per hypothesis, got 2"),
        ((["a"], [[]]), {}, r"references\[0\] must hold at least one reference"),
        (
            (["a"], ["a"]),
            {"mask": torch.ones(1)},
            "mask must be None where hypotheses are no tensor",
        ),
        ((["a"], ["a"]), {"eos": 2}, "eos must be None where hypotheses are strings"),
        ((["a"], ["a"]), {"keep_eos": True}, "keep_eos must be False without eos"),
        ((torch.ones(1, 2), [[1]]), {}, "hypotheses must be integer ids"),
        (
            (torch.ones(1, 2, dtype=torch.int64), [[1]]),
            {"mask": torch.ones(2, dtype=torch.bool)},
            r"mask must be bool \(1, 2\) like hypotheses",
        ),
        (
            (torch.ones(1, 2, dtype=torch.int64), [[1]]),
            {"mask": torch.ones(1, 2, dtype=torch.bool), "lengths": torch.ones(1)},
            "lengths must be None where there is a mask",
        ),
        (
            (torch.ones(1, 2, dtype=torch.int64), [[1]]),
            {"lengths": torch.ones(2)},
            r"lengths must be integers \(1,\), got torch.float32 \(2,\)",
        ),
        (
            ([[1]], [[1]]),
            {"reference_mask": torch.ones(1)},
            "reference_mask must be None where references are no tensor",
        ),
    ],
)
def test_pairs_that_do_not_fit_are_named(
    arguments: tuple[Any, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pairs_of(*arguments, **options)


def test_what_is_no_sequence_is_named() -> None:
    with pytest.raises(TypeError, match="hypotheses must be a list of sequences, got 'ab'"):
        pairs_of("ab", ["a", "b"])
    with pytest.raises(TypeError, match=r"hypotheses\[1\] must be a string or a list .* got 3"):
        pairs_of(["a", 3], ["a", "b"])
    with pytest.raises(TypeError, match="references must be a list, one item per"):
        pairs_of(["a"], "a")
