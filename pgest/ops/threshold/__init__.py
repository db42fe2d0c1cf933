"""Restrictions of rows of logits (top-k, top-p, min-p), as one threshold a row."""

from pgest.ops.threshold.api import row_threshold

__all__ = ["row_threshold"]
