"""What a reward pays for outputs that are no good, seen before it is trained on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pgest.ops import scalars
from pgest.rewards.ids import tensor_of
from pgest.rewards.pairs import Item, listed, pairs_of
from pgest.rewards.protocol import Reward, name_of, no_prefixes, scores_of
from pgest.rewards.sequences import is_text
from pgest.rewards.tricks import NOTHING, OTHERS, Tokens, tricks

PERFECT = "the reference itself"
HONEST = "the hypotheses"
UNENDED = "the reference without its end"


class Earning(NamedTuple):
    """What one kind of output earns: `mean`, with its standard error over the items.

    `share` says where the mean lies between `Audit.base` (0) and the references themselves (1),
    `of_honest` the same up to the hypotheses, NaN without them. `suspicious` is True for a trick
    that pays too well.
    """

    output: str
    mean: float
    standard_error: float
    share: float
    of_honest: float
    suspicious: bool


@dataclass(frozen=True)
class Audit:
    """What `audit` found; printed, it is a table, the best paid trick first.

    `perfect` is what the references themselves earn, `honest` the hypotheses (None without them).
    Shares count from `base`: 0, or what worthless output earns where that is less.
    """

    reward: str
    items: int
    threshold: float
    base: float
    perfect: Earning
    honest: Earning | None
    tricks: tuple[Earning, ...]

    @property
    def suspicious(self) -> tuple[Earning, ...]:
        """The tricks that pay too well."""
        return tuple(trick for trick in self.tricks if trick.suspicious)

    def __getitem__(self, output: str) -> Earning:
        return {row.output: row for row in self._rows()}[output]

    def __str__(self) -> str:
        rows = self._rows()
        digits = 2 if max(abs(row.mean) for row in rows) >= 10 else 3
        table = [["", "output", "mean", "s.e.", "of perfect", "of honest" if self.honest else ""]]
        for row in rows:
            numbers = [_fixed(row.mean, digits), _fixed(row.standard_error, digits)]
            shares = [_percent(row.share), _percent(row.of_honest) if self.honest else ""]
            table.append(["!" if row.suspicious else "", row.output, *numbers, *shares])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [f"{self.reward}: what outputs earn, mean of {self.items} items"]
        for mark, output, *cells in table:
            left = f"{mark:{widths[0]}} {output:{widths[1]}}"
            right = [f"{cell:>{width}}" for cell, width in zip(cells, widths[2:], strict=True)]
            lines.append("  ".join([left, *right]).rstrip())
        return "\n".join(lines + self._legend(digits))

    def _legend(self, digits: int) -> list[str]:
        least = f"at least {_percent(self.threshold)} of {PERFECT}"
        earn = f"more than {HONEST}" if self.honest else least
        lines = [f"! {len(self.suspicious)} of {len(self.tricks)} tricks earn {earn}"]
        if self.base < 0:
            lines.append(f"  shares count from {_fixed(self.base, digits)}, a worthless output")
        return lines

    def _rows(self) -> list[Earning]:
        return [self.perfect, *([self.honest] if self.honest else []), *self.tricks]


def audit(
    reward: Reward,
    references: Any,
    *,
    sources: Any = None,
    hypotheses: Any = None,
    kind: Literal["strings", "tokens"] | None = None,
    threshold: float = 0.5,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Audit:
    """Try known tricks on a reward and say what each would earn.

    A policy finds whatever a reward pays for. The tricks are made of the first reference of each
    item: parts of it, it and something more, its tokens in another order, one right token, once
    or over and over, frequent tokens, another item's reference, the source, and nothing at all.

        share = (mean - base) / (mean of the references themselves - base)
        base  = min(0, mean of nothing, mean of another item's reference)

    For a reward that is never negative that is the share of the perfect score. A trick is
    suspicious if it earns more than the hypotheses do; without them, if its share is at least the
    threshold; and always if it earns what the references themselves do.

    Args:
        reward: any reward. A cost is audited as `scaled(cost, -1)`.
        references: B items, as for the reward, which gets them as they are. What is tried is of
            their kind: ids where they, or the hypotheses, are a tensor.
        sources: B inputs of the model, of the same kind, for the trick of copying them.
        hypotheses: what an honest policy says now, as for the reward; `[S, B, T]` too.
        kind: what an item such as `["a", "b"]` is where no hypotheses say it: several references
            that are "strings", or one of "tokens".
        threshold: a share in (0, 1].
        generator: draws what tricks leave to chance; without it the seed is 0.
        options: go to the reward; those of ids also say what counts of the hypotheses.

    Tokens of strings are words, or characters where no reference holds white space. The EOS is none
    of them: with `keep_eos` it ends every output that is tried, the parts of a reference too, once;
    only "the reference without its end", which is tried then, has none.

    Returns:
        An `Audit`: print it, look at `suspicious`, or take `result["nothing"].mean`.

    Raises:
        ValueError: for no items, sources of another number, a kind that is not clear, `per_prefix`.
        RuntimeError: where the reward fails, naming the trick.

    Example:
        >>> def recall(hypotheses, references, **options):  # counts every right word that is said
        ...     pairs = zip(hypotheses, references)
        ...     return torch.tensor([sum(w in r.split() for w in h.split()) / len(r.split())
        ...                          for h, r in pairs])
        >>> found = audit(recall, ["the cat sat on the mat", "a dog slept in the sun"])
        >>> round(found["the reference, its last token 5 more times"].mean, 3)
        1.833
        >>> [trick.output for trick in found.suspicious][:2]
        ['the reference twice', 'the reference, its last token 5 more times']
    """
    threshold = scalars.share("threshold", threshold)
    given = no_prefixes("audit", options)
    references, hypotheses = tensor_of(references), tensor_of(hypotheses)
    if not isinstance(references, Tensor):
        references = listed("references", references, "a list, one item per hypothesis")
    strings = _are_strings(references, hypotheses, kind)
    of_hypotheses: dict[str, Any] = {}
    for name in ("mask", "lengths"):
        if name in given:
            of_hypotheses[name] = given.pop(name)
    ids = isinstance(references, Tensor) or isinstance(hypotheses, Tensor)
    first = _first(references, strings, isinstance(hypotheses, Tensor), given)
    form = _Form(first, ids, [given["eos"]] if given.get("keep_eos") else [])
    copied = None if sources is None else _sources(sources, form, len(first), given)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    bare = [form.tokens(item) for item in first]
    outputs = {
        output: [form.item(tokens) for tokens in batch]
        for output, batch in tricks(bare, copied, generator).items()
    }
    if given.get("keep_eos"):
        outputs[UNENDED] = list(bare)

    def scored(output: str, batch: Sequence[Item]) -> Tensor:
        written, mask = form.batch(batch)
        try:
            return scores_of(reward, written, references, {**given, **mask})
        except Exception as error:
            raise RuntimeError(f"{name_of(reward)} failed on {output!r}: {error}") from error

    scores = {PERFECT: scored(PERFECT, first)}
    if hypotheses is not None:
        own = scores_of(reward, hypotheses, references, {**given, **of_hypotheses})
        scores[HONEST] = own.reshape(-1, len(first)).mean(0)
    for output, batch in outputs.items():
        scores[output] = scored(output, batch)
    return _judged(name_of(reward), scores, threshold)


class _Form:
    """How outputs are written for the reward: as strings, lists, or padded ids with their mask.

    `end` is what ends an output and is no part of it: [EOS] where that counts.
    """

    def __init__(self, references: Sequence[Item], ids: bool, end: list[Hashable]) -> None:
        self._ids = ids
        self._end = end
        self._strings = is_text(references)
        # Words where there are any, else characters.
        self._words = any(len(text.split()) > 1 for text in references if isinstance(text, str))

    def tokens(self, item: Item) -> Tokens:
        if isinstance(item, str):
            return list(item.split()) if self._words else list(item)
        return item[:-1] if self._end and item[-1:] == self._end else item

    def item(self, tokens: Tokens) -> Item:
        if not self._strings:
            return tokens + self._end
        return (" " if self._words else "").join(map(str, tokens))

    def batch(self, items: Sequence[Item]) -> tuple[Any, dict[str, Tensor]]:
        if not self._ids:
            return list(items), {}
        lengths = torch.tensor([len(item) for item in items])
        mask = torch.arange(max(1, int(lengths.max()))) < lengths.unsqueeze(-1)
        ids = torch.zeros(mask.shape, dtype=torch.int64)
        ids[mask] = torch.tensor([token for item in items for token in item], dtype=torch.int64)
        return ids, {"mask": mask}


def _are_strings(references: Any, hypotheses: Any, kind: str | None) -> bool:
    if kind not in (None, "strings", "tokens"):
        raise ValueError(f"kind must be 'strings', 'tokens' or None, got {kind!r}")
    if len(references) == 0:
        raise ValueError("references must have at least one item, got none")
    if hypotheses is not None or kind is not None:
        return kind == "strings" if hypotheses is None else is_text(hypotheses)
    first = references[0]
    if isinstance(first, str) or not is_text(first.tolist() if hasattr(first, "tolist") else first):
        return isinstance(first, str)
    raise ValueError(
        f"kind must say what {first!r:.60} is without hypotheses: several references that are "
        "'strings', or one of 'tokens'"
    )


def _first(references: Any, strings: bool, ids: bool, given: Mapping[str, Any]) -> list[Item]:
    """The first reference of each item, as what counts of it."""
    counting: Any = {k: given[k] for k in ("eos", "keep_eos", "reference_mask") if k in given}
    size = len(references)
    nothing: Any = [""] * size if strings else [[]] * size
    if ids:
        nothing = torch.zeros(size, 0, dtype=torch.int64)
    return [group[0] for group in pairs_of(nothing, references, **counting).references]


def _sources(sources: Any, form: _Form, size: int, given: Mapping[str, Any]) -> list[Tokens]:
    if len(sources) != size:
        raise ValueError(f"sources must have {size} items like references, got {len(sources)}")
    counting: Any = {k: given[k] for k in ("eos", "keep_eos") if k in given}
    return [form.tokens(item) for item in pairs_of(sources, sources, **counting).hypotheses]


def _judged(reward: str, scores: Mapping[str, Tensor], threshold: float) -> Audit:
    """Compare the scores of all outputs; what is no trick comes first in them."""
    means = {output: earned.double().mean().item() for output, earned in scores.items()}
    base = min(0.0, means[NOTHING], means.get(OTHERS, 0.0))
    perfect, honest = means[PERFECT], means.get(HONEST, nan)

    def part(mean: float, whole: float) -> float:
        return (mean - base) / (whole - base) if whole > base else nan

    def earning(output: str) -> Earning:
        mean, earned = means[output], scores[output].double()
        error = earned.std().item() / sqrt(len(earned)) if len(earned) > 1 else nan
        share, trick = part(mean, perfect), output not in (PERFECT, HONEST)
        tempting = mean > honest if HONEST in means else share >= threshold
        suspicious = trick and (tempting or mean >= perfect)
        return Earning(output, mean, error, share, part(mean, honest), suspicious)

    rows = [earning(output) for output in scores if output not in (PERFECT, HONEST)]
    rows.sort(key=lambda row: -row.mean)
    own = earning(HONEST) if HONEST in means else None
    size = len(scores[PERFECT])
    return Audit(reward, size, threshold, base, earning(PERFECT), own, tuple(rows))


def _fixed(x: float, digits: int) -> str:
    return "-" if x != x else f"{x:.{digits}f}"


def _percent(x: float) -> str:
    return "-" if x != x else f"{100 * x:.0f} %"
