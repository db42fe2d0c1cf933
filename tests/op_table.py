"""The table of ops, with a row for each op and for each of its ways that differ."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import rows_bits
import rows_linear
import rows_relaxed
import rows_sample
import rows_stats
import rows_sums
from op_row import Op

TABLE = (
    *rows_stats.ROWS,
    *rows_sums.ROWS,
    *rows_sample.ROWS,
    *rows_relaxed.ROWS,
    *rows_bits.ROWS,
    *rows_linear.ROWS,
)


def _each(ops: Iterable[Op]) -> pytest.MarkDecorator:
    ops = tuple(ops)
    return pytest.mark.parametrize("op", ops, ids=[op.name for op in ops])


rows = _each(TABLE)
# What torch's library knows as an op.
library_rows = _each(op for op in TABLE if op.raw)
# What has second derivatives and takes vmap, and what refuses both.
whole_rows = _each(op for op in TABLE if op.whole)
refusing_rows = _each(op for op in TABLE if not op.whole)
# What torch's library knows as an op and torch.func may differentiate.
func_rows = _each(op for op in TABLE if op.raw and not op.once)
# Rows whose first outputs are logp, entropy and lse.
stats_rows = _each(rows_stats.PLAIN)
