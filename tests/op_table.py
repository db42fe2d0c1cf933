"""The table of ops, with a row for each op and for each of its ways that differ."""

from __future__ import annotations

import pytest
import rows_stats

TABLE = (*rows_stats.ROWS,)

rows = pytest.mark.parametrize("op", TABLE, ids=[op.name for op in TABLE])
# Rows whose first outputs are logp, entropy and lse.
stats_rows = pytest.mark.parametrize(
    "op", rows_stats.PLAIN, ids=[op.name for op in rows_stats.PLAIN]
)
