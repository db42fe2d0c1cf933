"""What known tricks earn, against figures measured by hand and rewards that are easy to cheat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pgest.rewards import Audit, audit, edit_distance, error_rate, per_sample, scaled
from pgest.rewards.tricks import Tokens, tricks

WORDS = ["zero one two three four five six seven eight nine", "a b c d e f g h i j"]
LAST = "the reference, its last token 5 more times"


def bleu(**settings: Any) -> Callable[[str, list[str]], float]:
    """Sentence BLEU of the field's own tool."""
    sacrebleu = pytest.importorskip("sacrebleu")

    def f(hypothesis: str, references: list[str]) -> float:
        return float(sacrebleu.sentence_bleu(hypothesis, references, **settings).score)

    return f


def overlap(hypotheses: Any, references: Any, **options: Any) -> Tensor:
    """How many of the reference's tokens are said, in any order, over its length."""

    def share(hypothesis: Any, group: Any) -> float:
        return len(set(hypothesis) & set(group[0])) / len(group[0])

    return per_sample(share)(hypotheses, references, **options)


def test_bleu_pays_what_was_measured() -> None:
    found = audit(per_sample(bleu()), WORDS)
    assert found.perfect.mean == pytest.approx(100)
    assert found[LAST].mean == pytest.approx(62.6, abs=0.05)
    assert found["one right token"].mean == pytest.approx(0.012, abs=0.0005)
    assert found["nothing"].mean == 0
    assert found["the reference of another item"].mean == 0
    assert LAST in [trick.output for trick in found.suspicious]


@pytest.mark.parametrize(
    ("smooth_method", "earned"), [("none", 0), ("floor", 2.1), ("exp", 4.2), ("add-k", 10.9)]
)
def test_smoothing_decides_what_repetition_earns(smooth_method: str, earned: float) -> None:
    found = audit(per_sample(bleu(smooth_method=smooth_method)), WORDS)
    assert found["one right token, repeated"].mean == pytest.approx(earned, abs=0.05)


def test_a_bag_of_words_pays_for_any_order() -> None:
    found = audit(overlap, [list("abcd"), list("efgh")], kind="tokens")
    paid = {trick.output for trick in found.suspicious}
    assert {"the reference, shuffled", "the reference, reversed", "the reference twice"} <= paid
    assert found["the 8 most frequent tokens"].mean == 1
    assert "one right token, repeated" not in paid
    assert found["one right token, repeated"].share == pytest.approx(0.25)


def test_the_hypotheses_are_the_measure_where_they_are_given() -> None:
    honest = [["a", "b", "x", "y"], ["e", "x", "y", "z"]]
    found = audit(overlap, [list("abcd"), list("efgh")], hypotheses=honest)
    assert found.honest is not None
    assert found.honest.mean == pytest.approx(0.375)
    assert found.honest.standard_error == pytest.approx(0.125)
    assert found["half of the reference"].of_honest == pytest.approx(0.5 / 0.375)
    assert found["half of the reference"].suspicious
    assert not found["a quarter of the reference"].suspicious
    lenient = audit(overlap, [list("abcd"), list("efgh")], kind="tokens", threshold=0.6)
    assert not lenient["half of the reference"].suspicious


def test_a_reward_that_reads_no_reference_is_seen() -> None:
    def constant(hypotheses: Any, references: Any, **options: Any) -> Tensor:
        return torch.full((len(hypotheses),), -2.0)

    found = audit(constant, WORDS)
    assert found.suspicious == found.tricks

    def long(hypotheses: Any, references: Any, **options: Any) -> Tensor:
        return torch.tensor([float(len(text)) for text in hypotheses])

    assert audit(long, WORDS)["the reference twice"].share > 2


def test_a_cost_is_audited_as_a_reward() -> None:
    pytest.importorskip("rapidfuzz")
    found = audit(scaled(error_rate, -1), [[list("abcd")], [list("efgh")]])
    assert (found.perfect.mean, found["nothing"].mean) == (0, -1)
    assert found.base == -1
    assert found["half of the reference"].share == 0.5
    assert found["one right token"].share == 0.25
    assert "shares count from -1.000" in str(found)
    backwards = audit(edit_distance, [[list("abcd")], [list("efgh")]])
    assert "nothing" in {trick.output for trick in backwards.suspicious}


@pytest.mark.parametrize("kind", ["strings", "characters", "lists", "ids", "masks", "eos"])
def test_every_kind_is_tried_alike(kind: str) -> None:
    numbers = [[1, 2, 3, 4], [5, 6, 7]]
    sources = [[1, 1], [2, 2, 2, 2]]
    honest = [[1, 2, 9], [5, 6]]
    padded = torch.tensor([[1, 2, 9, 0], [5, 6, 0, 0]])
    options: dict[str, Any] = {}
    references: Any = [[row] for row in numbers]
    hypotheses: Any = honest
    copied: Any = sources
    if kind in ("strings", "characters"):
        joint = " " if kind == "strings" else ""
        references = [joint.join(map(str, row)) for row in numbers]
        hypotheses = [joint.join(map(str, row)) for row in honest]
        copied = [joint.join(map(str, row)) for row in sources]
    elif kind != "lists":
        hypotheses = padded
        options = {"eos": 0} if kind == "eos" else {"mask": padded > 0}
        if kind == "masks":
            references = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]])
            options["reference_mask"] = references > 0
        elif kind == "eos":
            references = torch.tensor([[1, 2, 3, 4, 0], [5, 6, 7, 0, 3]])

    def right(hypothesis: Any, group: Any) -> float:
        return sum(x == y for x, y in zip(split(hypothesis), split(group[0]), strict=False))

    def split(item: Any) -> list[str]:
        if isinstance(item, str):
            return item.split() if kind == "strings" else list(item)
        return [str(token) for token in item]

    found = audit(per_sample(right), references, sources=copied, hypotheses=hypotheses, **options)
    expected = audit(
        per_sample(right), [[row] for row in numbers], sources=sources, hypotheses=honest
    )
    assert found == expected
    assert found.perfect.mean == 3.5
    assert found.honest is not None
    assert found.honest.mean == 2
    assert found["the source, copied"].mean == 0.5


def test_arrays_are_audited_as_tensors() -> None:
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])

    def of_ids(hypotheses: Any, references: Any, **options: Any) -> Tensor:
        assert isinstance(hypotheses, Tensor)
        return overlap(hypotheses, references, **options)

    assert audit(of_ids, ids.numpy()).perfect.mean == 1
    expected = audit(overlap, ids, hypotheses=ids.flip(0))
    assert audit(overlap, ids.numpy(), hypotheses=ids.numpy()[::-1].copy()) == expected
    assert audit(overlap, list(ids.numpy())).perfect == audit(overlap, ids).perfect
    words = np.array(["a b c", "d e"], dtype=object)
    assert audit(overlap, [words[:1], words[1:]], kind="strings").perfect.mean > 0


def test_samples_of_the_policy_are_averaged() -> None:
    ids = torch.tensor([[[1, 2], [9, 9]], [[1, 9], [9, 9]]])
    found = audit(overlap, [[[1, 2]], [[3, 4]]], hypotheses=ids)
    assert found.honest is not None
    assert found.honest.mean == pytest.approx(0.375)
    assert found.honest.standard_error == pytest.approx(0.375)


def test_chance_is_controlled() -> None:
    def run(seed: int | None) -> Audit:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return audit(per_sample(bleu()), WORDS, generator=generator)

    state = torch.get_rng_state()
    assert run(None) == run(None) == run(0)
    outputs = [tricks([list("abcdefgh")], None, torch.Generator().manual_seed(s)) for s in (0, 1)]
    assert outputs[0]["the reference, shuffled"] != outputs[1]["the reference, shuffled"]
    assert torch.equal(torch.get_rng_state(), state)


def test_tricks_are_what_they_say() -> None:
    references: list[Tokens] = [list("abcde"), list("aaf"), [], list("g")]
    outputs = tricks(references, [["s"]] * 4, torch.Generator().manual_seed(3))
    assert all(len(output) == 4 for output in outputs.values())
    assert outputs["a quarter of the reference"] == [["a", "b"], ["a"], [], ["g"]]
    assert outputs["half of the reference"] == [["a", "b", "c"], ["a", "a"], [], ["g"]]
    assert outputs["the reference but for its last token"][:2] == [list("abcd"), ["a", "a"]]
    assert outputs["the reference, reversed"][0] == list("edcba")
    assert sorted(map(str, outputs["the reference, shuffled"][0])) == list("abcde")
    assert outputs["the most frequent token, repeated"] == [["a"] * 5, ["a"] * 3, [], ["a"]]
    assert outputs["the 7 most frequent tokens"] == [list("abcdefg")] * 4
    assert outputs["the source, copied"] == [["s"]] * 4
    others = outputs["the reference of another item"]
    assert sorted(map(str, others)) == sorted(map(str, references))
    assert all(other is not own for other, own in zip(others, references, strict=True))
    garbage = outputs["the reference, as much garbage"]
    assert [len(output) for output in garbage] == [10, 6, 0, 2]
    assert garbage[0][:5] == list("abcde")
    assert set(garbage[0]) <= set("abcdefg")
    for token, tokens in zip(outputs["one right token"], references, strict=True):
        assert set(token) <= set(tokens)
        assert len(token) == bool(tokens)


def test_the_table_is_aligned_and_marks_what_pays() -> None:
    text = str(audit(overlap, [list("abcd"), list("efgh")], hypotheses=[list("abxy"), list("ey")]))
    title, head, *rows = text.splitlines()
    assert title == "overlap: what outputs earn, mean of 2 items"
    assert head.split() == ["output", "mean", "s.e.", "of", "perfect", "of", "honest"]
    table = rows[:-1]
    assert {len(row) for row in table} == {len(head)}
    assert rows[0].split() == "the reference itself 1.000 0.000 100 % 267 %".split()
    assert rows[1].split() == "the hypotheses 0.375 0.125 38 % 100 %".split()
    marked = [row for row in table if row.startswith("!")]
    assert rows[-1] == f"! {len(marked)} of 14 tricks earn more than the hypotheses"
    assert rows[2].startswith("! the ")
    assert not table[-1].startswith("!")


def test_one_item_has_no_error_and_no_other_item() -> None:
    found = audit(overlap, [[list("abcd")]])
    assert found.perfect.standard_error != found.perfect.standard_error
    assert "the reference of another item" not in str(found)
    assert found.perfect.share == 1
    assert " - " in str(found)


def never(hypotheses: Any, references: Any, **options: Any) -> Tensor:
    raise AssertionError("asked for nothing")


def test_bad_use_is_named() -> None:
    with pytest.raises(ValueError, match="references must have at least one item, got none"):
        audit(overlap, [])
    with pytest.raises(ValueError, match=r"kind must say what \['a', 'b'\] is without hypotheses"):
        audit(overlap, [["a", "b"]])
    with pytest.raises(ValueError, match="kind must be 'strings', 'tokens' or None, got 'ids'"):
        audit(overlap, [["a", "b"]], kind="ids")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sources must have 2 items like references, got 1"):
        audit(overlap, WORDS, sources=["a"])
    with pytest.raises(ValueError, match="per_prefix must be left out with audit"):
        audit(overlap, WORDS, per_prefix=True)
    with pytest.raises(ValueError, match=r"kind must say what array\(\['a', 'b'\]"):
        audit(overlap, [np.array(["a", "b"])])
    with pytest.raises(TypeError, match=r"references must be a list, one item per .* got {'a'}"):
        audit(overlap, {"a"})
    with pytest.raises(TypeError, match=r"references\[0\] must be a list of tokens, got 'a b'"):
        audit(overlap, ["a b"], hypotheses=torch.tensor([[1]]))
    with pytest.raises(ValueError, match="keep_eos must be False without eos, got True"):
        audit(overlap, [[[1]]], keep_eos=True)
    with pytest.raises(ValueError, match="threshold must be in"):
        audit(never, WORDS, threshold=2)

    def no_empty(hypotheses: Any, references: Any, **options: Any) -> Tensor:
        return torch.tensor([1.0 / len(text) for text in hypotheses])

    with pytest.raises(RuntimeError, match="no_empty failed on 'nothing': float division by zero"):
        audit(no_empty, WORDS)
