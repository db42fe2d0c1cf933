"""What `audit` does with the EOS of outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pgest.rewards import audit, edit_distance, per_sample, scaled

WORDS = ["zero one two three four five six seven eight nine", "a b c d e f g h i j"]
LAST = "the reference, its last token 5 more times"


@pytest.mark.parametrize("kind", ["lists", "ids", "arrays"])
def test_a_kept_eos_ends_what_is_tried_once(kind: str) -> None:
    seen: dict[tuple[int, ...], list[list[int]]] = {}

    def note(hypothesis: list[int], references: list[list[int]]) -> float:
        seen.setdefault(tuple(references[0]), []).append(hypothesis)
        return float(hypothesis == references[0])

    rows = [[3, 4, 5, 6, 2], [7, 8, 2, 0, 0]]  # 2 ends
    references: Any = [[row] for row in rows]
    sources: Any = [[9, 9, 2], [9, 2, 9]]
    if kind != "lists":
        references, sources = torch.tensor(rows), torch.tensor(sources)
    if kind == "arrays":
        references, sources = references.numpy(), sources.numpy()
    found = audit(per_sample(note), references, sources=sources, eos=2, keep_eos=True)
    assert found.perfect.mean == 1
    assert {trick.output for trick in found.suspicious} <= {"the reference, shuffled"}  # as it is
    outputs = seen[3, 4, 5, 6, 2]
    unended = [output for output in outputs if output[-1:] != [2]]
    assert unended == [[3, 4, 5, 6]]
    assert found["the reference without its end"].mean == 0
    assert all(output.count(2) <= 1 for output in outputs)
    assert [3, 4, 5, 6] * 2 + [2] in outputs  # the reference twice
    assert [3, 4, 2] in outputs  # half of it
    assert [3, 4, 5, 2] in outputs
    assert [6, 5, 4, 3, 2] in outputs
    assert [7, 8, 2] in outputs  # another item's
    assert [9, 9, 2] in outputs  # the source
    assert [2] in outputs  # nothing
    assert "the 6 most frequent tokens" in str(found)


def test_an_eos_that_is_not_kept_is_in_no_output() -> None:
    outputs = []

    def note(hypothesis: list[str], references: list[list[str]]) -> float:
        outputs.append(hypothesis)
        return 0

    found = audit(per_sample(note), [[["a", "b", "</s>", "c"]]], eos="</s>")
    assert {token for output in outputs for token in output} == {"a", "b"}
    assert "without its end" not in str(found)


def test_references_without_an_end_pay_for_outputs_without_one() -> None:
    found = audit(scaled(edit_distance, -1), [[[3, 4, 5]], [[6, 7]]], eos=2, keep_eos=True)
    assert (found.perfect.mean, found["the reference without its end"].suspicious) == (0, True)
