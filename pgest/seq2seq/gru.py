"""A small recurrent encoder-decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pgest.seq2seq.decoding import State, Step
from pgest.seq2seq.model import Seq2Seq


class GRUSeq2Seq(Seq2Seq):
    """A GRU reads the source, its last state opens a second GRU that writes the tokens.

    The parts are modules of `torch.nn`: `source_embedding`, `encoder` (`GRUCell`),
    `target_embedding`, `decoder` (`GRUCell`) and `output` (`Linear`).

    Args:
        source_size: number of source ids.
        target_size: number of tokens, V.
        hidden_size: size of embeddings and states, H.
        bos: the token that opens every sequence.

    Source: Cho et al. 2014 (arXiv 1406.1078).

    Example:
        >>> model = GRUSeq2Seq(5, 7, hidden_size=8, bos=2)
        >>> state = model.encode(torch.tensor([[1, 4], [3, 0]]), torch.tensor([2, 1]))
        >>> model(torch.tensor([[4, 3], [3, 3]]), torch.ones(2, 2).bool(), state).shape
        torch.Size([2, 2, 7])
    """

    def __init__(self, source_size: int, target_size: int, hidden_size: int, *, bos: int) -> None:
        super().__init__()
        self.bos = bos
        self.source_embedding = nn.Embedding(source_size, hidden_size)
        self.encoder = nn.GRUCell(hidden_size, hidden_size)
        self.target_embedding = nn.Embedding(target_size, hidden_size)
        self.decoder = nn.GRUCell(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, target_size)

    def encode(self, source: Tensor, lengths: Tensor) -> State:
        order, counts = _shrinking(lengths)
        table = _gate_table(self.source_embedding, self.encoder)
        hidden = table.new_zeros(len(source), self.encoder.hidden_size)
        ended: list[Tensor] = []
        for t, count in enumerate(counts):
            hidden, short = hidden.split([count, len(hidden) - count])
            ended.append(short)
            hidden = _gru(F.embedding(source[order[:count], t], table), hidden, self.encoder)
        last = torch.cat([hidden, *reversed(ended)])
        return (last[order.argsort()],)

    def stepper(self) -> Step:
        table = _gate_table(self.target_embedding, self.decoder)

        def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
            hidden = _gru(F.embedding(tokens, table), state[0], self.decoder)
            return self.output(hidden), (hidden,)

        return step

    def forward(self, tokens: Tensor, mask: Tensor, state: State) -> Tensor:
        order, counts = _shrinking(mask.sum(-1))
        previous = F.pad(tokens[order, : len(counts)], (1, 0), value=self.bos)
        table = _gate_table(self.target_embedding, self.decoder)
        hidden = state[0][order]
        outputs = [hidden[:0]]  # so that no rows at all give no logits
        for t, count in enumerate(counts):
            gates = F.embedding(previous[:count, t], table)
            hidden, _ = hidden.split([count, len(hidden) - count])
            hidden = _gru(gates, hidden, self.decoder)
            outputs.append(hidden)
        logits = self.output(torch.cat(outputs))
        row = torch.cat([order[:0], *(order[:count] for count in counts)])
        position = torch.arange(len(counts), device=tokens.device).repeat_interleave(
            torch.tensor(counts, dtype=torch.int64, device=tokens.device)
        )
        full = logits.new_zeros(*tokens.shape, logits.shape[-1])
        return full.index_put((row, position), logits)


def _shrinking(lengths: Tensor) -> tuple[Tensor, list[int]]:
    """Return the rows from long to short, and how many of them reach each position."""
    order = lengths.argsort(descending=True, stable=True)
    longest = int(lengths.max()) if len(lengths) else 0
    positions = torch.arange(longest, device=lengths.device)
    return order, (lengths.unsqueeze(-1) > positions).sum(0).tolist()


def _gate_table(embedding: nn.Embedding, cell: nn.GRUCell) -> Tensor:
    """Return the input's part of the gates for every id, `[V, 3H]`: far fewer than the inputs."""
    return F.linear(embedding.weight, cell.weight_ih, cell.bias_ih)


def _gru(gates: Tensor, hidden: Tensor, cell: nn.GRUCell) -> Tensor:
    """Return the next state, `[N, H]`, from the input's part of the gates, `[N, 3H]`."""
    # Splits, not slices: the backward of a slice fills a tensor of zeros for each.
    sizes = [2 * hidden.shape[-1], hidden.shape[-1]]
    input_gates, input_new = gates.split(sizes, dim=-1)
    state_gates, state_new = F.linear(hidden, cell.weight_hh, cell.bias_hh).split(sizes, dim=-1)
    reset, update = torch.sigmoid(input_gates + state_gates).chunk(2, dim=-1)
    new = torch.tanh(torch.addcmul(input_new, reset, state_new))
    return torch.lerp(new, hidden, update)
