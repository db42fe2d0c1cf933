"""REINFORCE on a language model, tiny and made in place: make it write what a black box likes.

The black box counts vowels; any function of the tokens would do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import pgest

VOCAB = "abcdefghijklmnopqrstuvwxyz "
VOWELS = torch.tensor([letter in "aeiou" for letter in VOCAB])


class LanguageModel(nn.Module):
    """Tokens [B, T] to logits of the next token [B, T, V]."""

    def __init__(self, vocab: int, hidden: int = 64) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(vocab, hidden), nn.GRU(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(tokens))[0])


@torch.no_grad()
def generate(model: LanguageModel, tokens: Tensor, length: int) -> Tensor:
    """Continue each prompt [B, P] by sampling: [B, P + length]."""
    for _ in range(length):
        tokens = torch.cat([tokens, pgest.Categorical(model(tokens)[:, -1:]).sample()], 1)
    return tokens


def main(steps: int = 80, batch: int = 64, length: int = 12) -> tuple[float, float]:
    """Return the mean reward of the first and of the last update."""
    torch.manual_seed(0)
    model, rewards = LanguageModel(len(VOCAB)), []
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    prompt = torch.tensor([VOCAB.index(letter) for letter in "the "]).expand(batch, -1)
    for _ in range(steps):
        tokens = generate(model, prompt, length)
        new = tokens[:, prompt.shape[1] :]
        reward = VOWELS[new].float().mean(1)
        weight = pgest.advantages.leave_one_out(reward)  # the batch is samples of one prompt
        logits = model(tokens[:, :-1])[:, prompt.shape[1] - 1 :]
        loss = pgest.objectives.reinforce_loss(logits, new, weight[:, None], normalizer=batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rewards.append(float(reward.mean()))
    text = "".join(VOCAB[i] for i in generate(model, prompt[:1], length)[0])
    print(f"vowels: {rewards[0]:.0%} before, {rewards[-1]:.0%} after; it writes {text!r}")
    return rewards[0], rewards[-1]


if __name__ == "__main__":
    main()
