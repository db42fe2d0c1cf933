"""The rules of vmap: its batch dimension becomes one more leading dimension of the logits."""

from __future__ import annotations

from typing import Any

from pgest.ops.rules import biased, front
from pgest.ops.stats.kernel import asked
from pgest.reference import StatsInput

_FIELDS = StatsInput._fields
_BIAS, _TOKENS = _FIELDS.index("bias"), _FIELDS.index("tokens")


class _Fold:
    """Arguments of one call with vmap's batch dimension among the leading ones."""

    def __init__(self, batch_size: int, in_dims: tuple[Any, ...], args: tuple[Any, ...]) -> None:
        self.batch_size, self.in_dims, self.args = batch_size, in_dims, args
        samples = args[_TOKENS] is not None and self._dim(_TOKENS) == self._dim(0)
        self.tokens_at = 1 if samples else 0

    def _dim(self, i: int) -> int:
        """Dimensions of an argument as the caller of vmap sees it."""
        return self.args[i].dim() - (self.in_dims[i] is not None)

    def front(self, i: int, at: int = 0) -> Any:
        """Argument `i` with the batch dimension at `at`."""
        return front(self.args[i], self.in_dims[i], self.batch_size, at)

    def inputs(self) -> list[Any]:
        """The fields of StatsInput. A bias for each element of the batch is added to the logits."""
        inputs = [self.front(i, self.tokens_at if i == _TOKENS else 0) for i in range(len(_FIELDS))]
        if self.in_dims[_BIAS] is None:
            inputs[_BIAS] = self.args[_BIAS]
        else:
            inputs[0], inputs[_BIAS] = biased(inputs[0], inputs[_BIAS]), None
        return inputs


def forward(apply: Any, batch_size: int, in_dims: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
    """The forward op's rule, by `apply`: results, and where their batch dimension is."""
    fold, names = _Fold(batch_size, in_dims, args), asked(args[-1])
    results = apply(*fold.inputs(), args[-1])
    dims = [fold.tokens_at if name in ("logp", "rank") else 0 for name in names]
    return results, type(results)([*dims, 1])


def backward(apply: Any, batch_size: int, in_dims: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
    """The backward op's rule, by `apply`."""
    fold, n = _Fold(batch_size, in_dims, args), len(_FIELDS)
    state, grad_logp = fold.front(n, at=1), fold.front(n + 1, at=fold.tokens_at)
    grads = (fold.front(i) for i in range(n + 2, len(args) - 1))
    grad_logits, grad_temperature = apply(*fold.inputs(), state, grad_logp, *grads, args[-1])
    return (grad_logits.to(args[0].dtype), grad_temperature), (0, 0 if args[-1] else None)
