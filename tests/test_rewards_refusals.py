"""The names of what rewards refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pgest.rewards import bleu, error_rate


class Lazy:
    """A record that looks like a sequence until it is read."""

    def __getitem__(self, index: int) -> int:
        raise KeyError(index)


REFUSED: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
    (
        ValueError,
        "references must have 2 items, one per hypothesis, got 1",
        ([[1], [2]], [[1]]),
        {},
    ),
    (
        ValueError,
        r"references\[1\] must hold at least one reference, got an empty list",
        (["a", "b"], [["a"], []]),
        {},
    ),
    (TypeError, r"references\[0\] must be a list of tokens, got 'ab'", ([[1]], ["ab"]), {}),
    (TypeError, r"references\[0\] must be a list of tokens, got None", ([[1]], [None]), {}),
    (
        TypeError,
        r"references\[0\]\[1\] must be a list of tokens, got None",
        ([[1]], [[[1], None]]),
        {},
    ),
    (TypeError, r"references\[0\]\[0\] must be a string, got 1", (["a"], [[1]]), {}),
    (TypeError, r"hypotheses\[1\] must be a list of tokens, got 5", ([[1], 5], [[1], [1]]), {}),
    (TypeError, r"hypotheses\[1\] must be a string, got \[1\]", (["a", [1]], ["a", "a"]), {}),
    (TypeError, r"hypotheses\[0\] must be a list of tokens, got b'ab'", ([b"ab"], [b"ab"]), {}),
    (TypeError, "hypotheses must be a list of sequences, got the string 'ab'", ("ab", ["ab"]), {}),
    (TypeError, "hypotheses must be a list, got None", (None, ["ab"]), {}),
    (TypeError, "references must be a list, got None", ([[1]], None), {}),
    (TypeError, r"hypotheses\[0\] must be hashable tokens, got \[2\]", ([[1, [2]]], [[1]]), {}),
    (
        ValueError,
        r"hypotheses must be integer ids of shape \[..., B, T\], got torch.float32",
        (torch.zeros(2, 3), [[1]]),
        {},
    ),
    (
        ValueError,
        r"hypotheses must be integer ids .* got torch.int64 \(3,\)",
        (torch.zeros(3, dtype=torch.int64), [[1]]),
        {},
    ),
    (
        ValueError,
        r"references must be integer ids of shape \[B, T\] or",
        ([[1]], torch.zeros(3, dtype=torch.int64)),
        {},
    ),
    (
        ValueError,
        r"references must be at least one each",
        ([[1]], torch.zeros(1, 0, 3, dtype=torch.int64)),
        {},
    ),
    (
        ValueError,
        "mask must be None where hypotheses are no tensor",
        ([[1]], [[1]]),
        {"mask": torch.ones(1, 1, dtype=torch.bool)},
    ),
    (
        ValueError,
        "eos must be None where hypotheses are strings, got 2",
        (["a"], ["a"]),
        {"eos": 2},
    ),
    (
        ValueError,
        "keep_eos must be False without eos, got True",
        ([[1]], [[1]]),
        {"keep_eos": True},
    ),
    (
        ValueError,
        "reference_mask must be None where references are no tensor",
        ([[1]], [[1]]),
        {"reference_mask": torch.ones(1, 1)},
    ),
    (KeyError, "0", ([["a"]], [Lazy()]), {}),
    (
        TypeError,
        r"references\[0\] must be a list of tokens, got '" + "ж" * 79,
        ([["a"]], ["ж" * 90]),
        {},
    ),
    (
        TypeError,
        r"must be whole numbers or hashable tokens, got tensor\(1.5",
        ([[torch.tensor(1.5)]], [[1]]),
        {},
    ),
    (TypeError, "references must be a list, got {'a': 1}", (["a"], {"a": 1}), {}),
    (TypeError, "references must be a list, got 'a'", (["a"], "a"), {}),
    (TypeError, "no keyword 'masks': a reward takes", ([[1]], [[1]]), {"masks": None}),
]
IDS = torch.zeros(2, 3, dtype=torch.int64)
REFUSED_OF_IDS: list[tuple[str, dict[str, Any]]] = [
    (
        r"mask must be bool \(2, 3\) like hypotheses, got torch.bool \(3,\)",
        {"mask": torch.ones(3, dtype=torch.bool)},
    ),
    (r"mask must be bool \(2, 3\) like hypotheses, got torch.int64", {"mask": IDS}),
    ("lengths must be from 0 to 3, got -1 to 2", {"lengths": torch.tensor([-1, 2])}),
    ("lengths must be from 0 to 3, got 0 to 4", {"lengths": torch.tensor([0, 4])}),
    (
        r"lengths must be integers \(2,\), got torch.int64 \(3,\)",
        {"lengths": torch.tensor([0, 1, 2])},
    ),
    (r"lengths must be integers \(2,\), got torch.float32", {"lengths": torch.ones(2)}),
    ("eos must be an integer where hypotheses are ids, got '</s>'", {"eos": "</s>"}),
    ("lengths must be None where there is a mask", {"lengths": torch.ones(2), "mask": IDS > 0}),
]


@pytest.mark.parametrize(
    ("error", "message", "args", "options"), REFUSED, ids=[r[1] for r in REFUSED]
)
def test_bad_input_is_named(error: type[Exception], message: str, args: Any, options: Any) -> None:
    with pytest.raises(error, match=message):
        error_rate(*args, **options)


@pytest.mark.parametrize(("message", "options"), REFUSED_OF_IDS)
def test_bad_masks_are_named(message: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        error_rate(IDS, [[1], [1]], **options)


def test_a_dictionary_is_no_list_of_texts_either() -> None:
    """Where strings are tokenized first, nothing else may pass for a list of them."""
    for references in ({"a b": 1}, {"a b"}, (x for x in ["a b"]), "x"):
        with pytest.raises(TypeError, match="references must be a list, got"):
            bleu(["a b"], references)  # type: ignore[arg-type]


def test_references_that_pad_their_number_do_not_count() -> None:
    ids = torch.tensor([[[1, 2, 3, 4]] * 2, [[5, 6, 0, 0], [5, 6, 7, 0]]])
    lengths = torch.tensor([[4, 0], [2, 3]])
    mask = torch.arange(4) < lengths[..., None]
    hypotheses = [[1, 2], [5, 6, 7]]
    want = bleu(hypotheses, [[[1, 2, 3, 4]], [[5, 6], [5, 6, 7]]])
    assert torch.equal(bleu(hypotheses, ids, reference_mask=mask), want)
    mask[1] = False
    with pytest.raises(ValueError, match="must leave each item a reference, got none for item 1"):
        bleu(hypotheses, ids, reference_mask=mask)
