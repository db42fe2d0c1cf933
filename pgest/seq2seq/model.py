"""What a sequence model must offer to be drawn from and trained."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from pgest.seq2seq.decoding import State, Step


class Seq2Seq(nn.Module, ABC):
    """An encoder-decoder whose sequences open with the token `bos`.

    Its three methods share one kind of `State`: dimension 0 of every tensor in it is the row, so
    that rows can be repeated, selected and dropped without knowing the model.
    """

    bos: int

    @abstractmethod
    def encode(self, source: Tensor, lengths: Tensor) -> State:
        """Read `source [B, L]`, of which the first `lengths [B]` (at least 1) ids of a row count.

        Returns the decoder's first state, B rows, differentiable.
        """

    @abstractmethod
    def stepper(self) -> Step:
        """Return the step function for `sample` and `greedy`.

        What does not depend on the row is computed once, here: make a new one after an update.
        """

    @abstractmethod
    def forward(self, tokens: Tensor, mask: Tensor, state: State) -> Tensor:
        """Return the logits of given tokens (teacher forcing), `[N, T, V]`, differentiable.

        `tokens [N, T]` include the closing token, `mask [N, T]` is True on a row's first positions
        and `state` has N rows. The logits at position t are those from which `tokens[:, t]` is
        chosen: given the tokens before it. Masked positions cost nothing and hold zeros.
        """
