"""Without a compiled kernel a draw refuses the temperatures that the kernel refuses, by name."""

from __future__ import annotations

import pytest
import torch

from pgest.ops.relaxed import kernel as relaxed
from pgest.ops.sampling import kernel as sampling

LOGITS = torch.zeros(2, 3)
MESSAGES = {-1.0: "positive and finite, got -1.0 in row 1", 1e-40: "from 1e-38 to .* in row 1"}


@pytest.mark.parametrize("value", MESSAGES)
def test_bad_temperatures_are_named(value: float) -> None:
    temperature = torch.tensor([1.0, value], dtype=torch.float64)
    noise = torch.full((1, 2), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"^temperature must be {MESSAGES[value]}"):
        sampling._sample(LOGITS, None, 0.0, temperature, None, None, noise, 0, 1, False)
    with pytest.raises(ValueError, match=f"^tau must be {MESSAGES[value]}"):
        relaxed._gumbel_softmax(LOGITS, temperature, None, LOGITS, False)
