"""A few sizes under pytest-benchmark: `pytest benchmarks --benchmark-only --benchmark-compare`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import ops


@pytest.mark.parametrize("who", ["pgest", "eager"])
@pytest.mark.parametrize("work", ops.WORKS)
@pytest.mark.parametrize("size", [(64, 10), (128, 1000), (256, 32000)], ids=str)
def test_token_stats(benchmark: Any, size: tuple[int, int], work: str, who: str) -> None:
    benchmark.group = f"{size} {work}"
    logits, tokens = torch.randn(size), torch.randint(size[1], size[:1])
    wrap = ops.forward_backward if work.startswith("f+b") else ops.forward
    benchmark(wrap(ops.peers("entropy" in work)[who], logits, tokens).run)
