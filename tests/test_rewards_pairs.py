"""Hypotheses and references of every kind, read as what counts of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pgest.rewards import cached, edit_distance, per_sample
from pgest.rewards.pairs import pairs_of
from pgest.rewards.protocol import scores_of

IDS = torch.tensor([[5, 6, 2, 0], [5, 6, 7, 8]])
TARGETS = torch.tensor([[5, 6, 2], [5, 6, 7]])
MASK = IDS > 0
# Hypotheses, references and keywords: what one reward takes or refuses, all do.
INPUTS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "arrays": (IDS.numpy(), TARGETS.numpy(), {}),
    "arrays, mask": (IDS.numpy(), TARGETS, {"mask": MASK.numpy()}),
    "array as mask": (IDS, TARGETS, {"mask": MASK.numpy()}),
    "array as reference mask": (IDS, TARGETS, {"reference_mask": (TARGETS != 2).numpy()}),
    "samples": (torch.stack([IDS, IDS + 1]), TARGETS, {"eos": 2}),
    "samples, array": (torch.stack([IDS, IDS + 1]).numpy(), TARGETS, {}),
    "samples, lengths": (torch.stack([IDS, IDS]), TARGETS, {"lengths": [[1, 2], [3, 4]]}),
    "no samples": (torch.zeros(0, 2, 3, dtype=torch.int64), TARGETS, {}),
    "lengths": (IDS, TARGETS, {"lengths": torch.tensor([3, 4])}),
    "list of lengths": (IDS, TARGETS, {"lengths": [3, 4]}),
    "array of lengths": (IDS, TARGETS, {"lengths": np.array([3, 4])}),
    "negative length": (IDS, TARGETS, {"lengths": torch.tensor([-1, 4])}),
    "length too large": (IDS, TARGETS, {"lengths": torch.tensor([1, 5])}),
    "fraction of a length": (IDS, TARGETS, {"lengths": torch.tensor([1.5, 2])}),
    "no references": (IDS, torch.zeros(2, 0, 3, dtype=torch.int64), {}),
    "references in four dimensions": (IDS, TARGETS[:, None, None], {}),
    "several references": (IDS, torch.stack([TARGETS, TARGETS + 1], 1), {}),
    "lists, padded references": (IDS.tolist(), TARGETS, {"reference_mask": TARGETS != 2}),
    "tuples": (((5, 6), (7,)), ((5, 6), (7, 8)), {}),
    "ranges": ([range(3)], [range(4)], {}),
    "list of rows": (list(IDS), list(TARGETS), {}),
    "list of arrays": (list(IDS.numpy()), list(TARGETS.numpy()), {}),
    "references as an array": ([[1, 2]], [np.array([[1, 3], [3, 4]])], {}),
    "strings as an array": (["abc"], [np.array(["abd", "xyz"])], {}),
    "strings as an array of objects": (["abc"], [np.array(["abd", "xyz"], dtype=object)], {}),
    "strings, references of ids": (["a"], torch.tensor([[1]]), {}),
    "strings, references of tokens": (["a"], [[1]], {}),
    "strings and a list": (["a", [1]], ["a", "a"], {}),
    "ids, references of strings": (IDS, ["a", "b"], {}),
    "tokens, references of strings": ([[1], [2]], ["a", "b"], {}),
    "tokens, several of strings": ([[1]], [[[1], "a"]], {}),
    "tuples as tokens": ([[(1, 2)]], [[[(1, 2)]]], {}),
    "a set": ([[5]], [{5}], {}),
    "a dictionary": ([[5]], [{5: 6}], {}),
    "bytes": ([[97]], [b"a"], {}),
    "None": ([[1]], [[[1], None]], {}),
    "a set of references": (["a"], {"a"}, {}),
    "a dictionary of references": ([[1]], {0: [1]}, {}),
    "a generator of references": (["a"], (text for text in "a"), {}),
    "a string as references": (["a"], "a", {}),
    "bytes as references": ([[1]], b"a", {}),
    "a dictionary of hypotheses": ({0: [1]}, [[1]], {}),
    "a generator of hypotheses": ((text for text in "a"), ["a"], {}),
    "tokens that are lists": ([[1, [2]]], [[1]], {}),
    "references with tokens that are lists": ([[1]], [[1, [2]]], {}),
    "eos": (IDS, TARGETS, {"eos": 2, "keep_eos": True}),
    "eos that is a list": (IDS, TARGETS, {"eos": [2]}),
    "eos of strings": (["a"], ["a"], {"eos": 2}),
    "unknown keyword": (IDS, TARGETS, {"masks": MASK}),
    "floats": (IDS.float(), TARGETS, {}),
    "float references": (IDS, TARGETS.float(), {}),
}


def distance(hypothesis: Any, references: list[Any]) -> int:
    """The edit distance to the closest, by its definition."""

    def of(a: Any, b: Any) -> int:
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            above, row[0] = row[0], i
            for j, y in enumerate(b, 1):
                above, row[j] = row[j], min(above + (x != y), row[j] + 1, row[j - 1] + 1)
        return row[-1]

    return min(of(hypothesis, reference) for reference in references)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("remembered", [False, True])
def test_what_one_reward_takes_or_refuses_all_do(name: str, remembered: bool) -> None:
    def outcome(reward: Callable[..., torch.Tensor]) -> Any:
        try:
            return scores_of(reward, hypotheses, references, options).tolist()
        except (TypeError, ValueError) as error:
            return type(error)

    hypotheses, references, options = INPUTS[name]
    expected = outcome(edit_distance)
    mine = per_sample(distance)
    assert outcome(cached(edit_distance) if remembered else mine) == expected
    assert outcome(cached(mine)) == expected


def test_a_reference_of_which_the_mask_counts_nothing_is_none() -> None:
    targets = torch.tensor([[[1, 2], [3, 0]], [[4, 5], [0, 0]]])
    several = pairs_of([[1], [2]], targets, reference_mask=targets > 0).references
    assert several == [[[1, 2], [3]], [[4, 5]]]
    with pytest.raises(
        ValueError, match="reference_mask must leave each item a reference, got none for item 1"
    ):
        pairs_of([[1], [2]], targets, reference_mask=(targets > 0) & (targets < 4))
    one = pairs_of([[1], [2]], targets[:, 1], reference_mask=targets[:, 1] > 0).references
    assert one == [[[3]], [[]]]  # the only reference, and an empty one
    ends = pairs_of([[1], [2]], targets, eos=4).references
    assert ends[1] == [[], [0, 0]]


def test_pieces_of_a_text_have_strings_as_references() -> None:
    pieces = pairs_of([["the", " cat"], []], ["the cat", ["a", "b"]])
    assert pieces.references == [["the cat"], [["a", "b"]]]
    assert pairs_of([["the", " cat"]], [[["a"], "the cat"]]).references == [[["a"], "the cat"]]
    with pytest.raises(ValueError, match="eos must be None where references are strings, got 't'"):
        pairs_of([["the", " cat"]], ["the cat"], eos="t")


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
    with pytest.raises(TypeError, match=r"hypotheses\[1\] must be a string, got 3"):
        pairs_of(["a", 3], ["a", "b"])
    with pytest.raises(TypeError, match="references must be a list, one item per"):
        pairs_of(["a"], "a")
    with pytest.raises(TypeError, match=r"references\[0\] must be a list of tokens, got 'ab'"):
        pairs_of(torch.tensor([[1]]), ["ab"])
    with pytest.raises(
        TypeError, match=r"references\[1\] must be a string or a list of strings, go"
    ):
        pairs_of(["a", "b"], ["a", {"b"}])
    with pytest.raises(TypeError, match=r"hypotheses\[0\] must be hashable tokens, got \[\[2\]\]"):
        pairs_of([[[2]]], [[1]])
    with pytest.raises(TypeError, match="no keyword 'masks': a reward takes"):
        pairs_of(["a"], ["a"], masks=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="eos must be an integer where hypotheses are ids, got 'a"):
        pairs_of(torch.tensor([[1]]), [[1]], eos="a")
