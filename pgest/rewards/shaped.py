"""Credit for each token: what a score gained with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pgest.rewards.sequences import Hypotheses, References, counted_of, is_text


def shaped(
    reward: Callable[..., Tensor],
    hypotheses: Hypotheses,
    references: References,
    *,
    from_empty: bool = False,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Tensor:
    """Return what each token added to the score: the differences of `reward(..., per_prefix=True)`.

        r_t = reward(tokens up to t) - reward(tokens up to t - 1),   r_0 = reward(token 0)

    They sum to the score of the whole, so that `pgest.advantages.returns` makes rewards-to-go of
    them with the same expectation of the gradient and less of its variance.

    Args:
        reward: `bleu`, `chrf`, `rouge_l`, `edit_distance`, `error_rate`, or any function with
            `per_prefix`. Of a cost the negative is the reward: `-shaped(error_rate, ...)`.
        hypotheses, references: as the reward takes them.
        from_empty: start from what an empty hypothesis scores, which is not 0 for a distance; the
            sum is then the score minus that.
        dtype: of the result; differences are taken in float64.
        **options: of the reward, `mask` and `eos` among them.

    Returns:
        `[B, T]`, or `[..., B, T]` for ids. 0 where a token does not count, and
        all 0, whatever the score, where none does.

    Raises:
        TypeError: for a reward without `per_prefix`; and what the reward raises.

    Source: Ng et al. 1999, Policy invariance under reward transformations (potential differences).

    Example:
        >>> from pgest.rewards import rouge_l
        >>> shaped(rouge_l, [[1, 2, 3]], [[1, 3, 4]])
        tensor([[ 0.5000, -0.1000,  0.2667]])
    """
    options = {**options, "dtype": torch.float64}
    each = reward(hypotheses, references, per_prefix=True, **options)
    first = torch.zeros_like(each[..., :1])
    if from_empty:
        first = first + _of_nothing(reward, hypotheses, references, options)
    elif (counted := counted_of(hypotheses, options)) is not None:
        # Before the first token that counts stands the score of nothing: that token's to bring.
        each = each.masked_fill(counted == 0, 0)
    return torch.diff(each, dim=-1, prepend=first).to(dtype)


def _of_nothing(
    reward: Callable[..., Tensor],
    hypotheses: Any,
    references: References,
    options: dict[str, Any],
) -> Tensor:
    """The score of an empty hypothesis for each item, [B, 1]."""
    for_ids = ("mask", "lengths")
    rest = {name: value for name, value in options.items() if name not in for_ids}
    batch = len(hypotheses) if isinstance(hypotheses, list | tuple) else hypotheses.shape[-2]
    empty: list[Any] = ["" if is_text(hypotheses) else [] for _ in range(batch)]
    return reward(empty, references, **rest)[:, None]
