"""Decoding against enumeration, the GRU against torch's, merging against not merging."""

import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from pgest.seq2seq import GRUSeq2Seq, State, Step, distinct, greedy, sample

BOS, EOS = 2, 3


def chain(table: Tensor) -> Step:
    """A Markov chain as a model: the next token's logits depend on the last token and the row."""

    def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
        return table[state[0], tokens], state

    return step


def small_model() -> GRUSeq2Seq:
    torch.manual_seed(0)
    return GRUSeq2Seq(6, 5, 8, bos=BOS).double()


def random_tables() -> Tensor:
    table = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1))
    table[:, :, BOS] = -math.inf  # never drawn, as under a grammar
    return table


def test_samples_have_the_frequencies_of_their_logp() -> None:
    table, count = random_tables(), 20_000
    draw = sample(
        chain(table),
        (torch.arange(2),),
        count,
        bos=BOS,
        eos=EOS,
        max_length=3,
        generator=torch.Generator().manual_seed(0),
    )
    for row in range(2):
        found = Counter(map(tuple, draw.tokens[:, row].tolist()))
        mass = 0.0
        for tokens, times in found.items():
            previous, logp = BOS, 0.0
            for token in tokens:
                logp += table[row, previous].log_softmax(0)[token].item()
                previous = token
                if token == EOS:
                    break
            p = math.exp(logp)
            mass += p
            # Six standard errors: one draw of this test in 10^7 would fail by chance.
            assert abs(times / count - p) < 6 * math.sqrt(p * (1 - p) / count) + 1e-9
            i = draw.tokens[:, row].tolist().index(list(tokens))
            assert draw.logp[i, row].sum().item() == pytest.approx(logp, abs=1e-5)
        assert mass > 0.99


def test_mask_ends_with_the_first_eos_and_tokens_hold_eos_beyond() -> None:
    draw = sample(
        chain(random_tables()),
        (torch.arange(2),),
        50,
        bos=BOS,
        eos=EOS,
        max_length=6,
    )
    before = (draw.tokens == EOS).cumsum(-1) - (draw.tokens == EOS).long()
    assert torch.equal(draw.mask, before == 0)
    assert (draw.tokens[~draw.mask] == EOS).all()
    assert (draw.logp[~draw.mask] == 0).all()
    assert (draw.tokens != BOS).all()
    assert draw.mask.any(0).any(0).all()  # no column that nobody reaches


def test_generator_alone_decides() -> None:
    def draw(seed: int) -> Tensor:
        model = small_model()
        state = model.encode(torch.tensor([[1, 4, 2]]), torch.tensor([3]))
        generator = torch.Generator().manual_seed(seed)
        draw = sample(
            model.stepper(), state, 20, bos=BOS, eos=EOS, max_length=9, generator=generator
        )
        return draw.tokens

    first = draw(0)
    torch.rand(3)
    assert torch.equal(first, draw(0))
    assert not torch.equal(first[..., :2], draw(1)[..., :2])


def test_greedy_takes_the_most_likely_token() -> None:
    table = random_tables()
    draw = greedy(
        chain(table),
        (torch.arange(2),),
        bos=BOS,
        eos=EOS,
        max_length=5,
    )
    for row in range(2):
        previous = BOS
        for token in draw.tokens[0, row][draw.mask[0, row]].tolist():
            assert token == table[row, previous].argmax()
            previous = token


def test_bad_lengths_are_named() -> None:
    step = chain(random_tables())
    for name, options in (("num_samples", (0, 5)), ("max_length", (1, 0))):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            sample(
                step,
                (torch.arange(2),),
                options[0],
                bos=BOS,
                eos=EOS,
                max_length=options[1],
            )


def test_scoring_given_tokens_agrees_with_drawing_them() -> None:
    model = small_model()
    source, lengths = torch.tensor([[1, 4, 2], [5, 0, 0]]), torch.tensor([3, 1])
    state = model.encode(source, lengths)
    draw = sample(model.stepper(), state, 10, bos=BOS, eos=EOS, max_length=9)
    rows = torch.arange(2).repeat(10)
    tokens, mask = draw.tokens.flatten(0, 1), draw.mask.flatten(0, 1)
    logits = model(tokens, mask, (state[0][rows],))
    logp = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    expected = draw.logp.flatten(0, 1).double()
    torch.testing.assert_close(logp * mask, expected, atol=1e-5, rtol=0)
    assert (logits[~mask] == 0).all()


def test_gru_is_torchs_gru() -> None:
    model = small_model()
    source, lengths = torch.tensor([[1, 4, 2], [5, 0, 0], [3, 1, 0]]), torch.tensor([3, 1, 2])
    theirs = nn.GRU(8, 8, batch_first=True).double()
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    theirs.load_state_dict({f"{n}_l0": getattr(model.encoder, n) for n in names})
    (state,) = model.encode(source, lengths)
    for row, length in enumerate(lengths.tolist()):
        _, last = theirs(model.source_embedding(source[row : row + 1, :length]))
        torch.testing.assert_close(state[row], last[0, 0])
    theirs.load_state_dict({f"{n}_l0": getattr(model.decoder, n) for n in names})
    tokens = torch.tensor([[4, 1, 3], [0, 3, 3], [3, 3, 3]])
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    opened = torch.cat([torch.full((3, 1), BOS), tokens[:, :-1]], dim=1)
    outputs, _ = theirs(model.target_embedding(opened), state.unsqueeze(0))
    expected = model.output(outputs) * mask.unsqueeze(-1)
    torch.testing.assert_close(model(tokens, mask, (state,)), expected)


def test_no_rows_give_no_logits_and_a_zero_gradient() -> None:
    model = small_model()
    state = model.encode(torch.tensor([[1, 4]]), torch.tensor([2]))[0]
    empty = torch.zeros(0, 4, dtype=torch.int64)
    logits = model(empty, empty.bool(), (state[:0],))
    assert logits.shape == (0, 4, 5)
    logits.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_merging_keeps_the_weighted_gradient() -> None:
    model = small_model()
    state = model.encode(torch.tensor([[1, 4, 2], [5, 3, 0]]), torch.tensor([3, 2]))
    draw = sample(model.stepper(), state, 30, bos=BOS, eos=EOS, max_length=3)
    weight = torch.randn(30, 2, dtype=torch.float64)
    merged = distinct(draw.tokens, draw.mask)
    assert len(merged.row) < 60
    assert torch.equal(merged.tokens[merged.inverse], draw.tokens)
    assert torch.equal(merged.mask[merged.inverse], draw.mask)
    assert torch.equal(merged.row[merged.inverse], torch.arange(2).expand(30, 2))

    def gradient(tokens: Tensor, mask: Tensor, row: Tensor, weight: Tensor) -> list[Tensor]:
        logits = model(tokens, mask, (state[0][row],))
        logp = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        loss = (logp * mask * weight.unsqueeze(-1)).sum()
        parameters = list(model.parameters())
        return list(torch.autograd.grad(loss, parameters, retain_graph=True))

    everything = draw.tokens.flatten(0, 1), draw.mask.flatten(0, 1)
    expected = gradient(*everything, torch.arange(2).repeat(30), weight.flatten())
    found = gradient(merged.tokens, merged.mask, merged.row, merged.total(weight))
    torch.testing.assert_close(found, expected)


def test_merging_refuses_shapes_that_do_not_belong_together() -> None:
    tokens = torch.zeros(3, 2, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"got \(3, 2, 4\) and \(3, 2, 3\)"):
        distinct(tokens, tokens[..., 1:].bool())
    merged = distinct(tokens, tokens.bool())
    with pytest.raises(ValueError, match=r"weight must have shape \(3, 2\), .* got \(2, 3\)"):
        merged.total(torch.zeros(2, 3))


def test_totals_of_weights_that_cancel_are_zero_and_no_others() -> None:
    tokens = torch.tensor([[[4, 1]], [[4, 1]], [[4, 1]], [[5, 1]]])
    merged = distinct(tokens, tokens > 0)
    cancel = torch.tensor([[0.1], [0.2], [-0.3], [1e-9]])
    assert merged.total(cancel).tolist() == pytest.approx([0.0, 1e-9], rel=1e-6, abs=0)
    broken = torch.tensor([[torch.nan], [1.0], [1.0], [1.0]])  # the loss must show it
    assert merged.total(broken).isnan().tolist() == [True, False]


def test_no_rows_to_merge() -> None:
    empty = torch.zeros(3, 0, 2, dtype=torch.int64)
    assert len(distinct(empty, empty > 0).total(torch.zeros(3, 0))) == 0


def test_the_temperature_is_that_of_the_policy() -> None:
    model = small_model()
    state = model.encode(torch.tensor([[1, 4, 2], [5, 3, 0]]), torch.tensor([3, 2]))
    draw = sample(model.stepper(), state, 4000, bos=BOS, eos=EOS, max_length=2, temperature=0.5)
    merged = distinct(draw.tokens, draw.mask)
    logits = model(merged.tokens, merged.mask, (state[0][merged.row],)) / 0.5
    logp = logits.log_softmax(-1).gather(-1, merged.tokens.unsqueeze(-1)).squeeze(-1)
    logp = torch.where(merged.mask, logp, 0.0).sum(-1)
    torch.testing.assert_close(logp[merged.inverse].float(), draw.logp.sum(-1))
    frequency = merged.total(torch.ones(4000, 2)) / 4000
    assert (frequency - logp.exp()).abs().max() < 5 * (0.25 / 4000) ** 0.5
    with pytest.raises(ValueError, match="temperature must be positive and finite, got 0"):
        sample(model.stepper(), state, bos=BOS, eos=EOS, max_length=2, temperature=0)


@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
def test_a_row_without_a_possible_token_is_refused(bad: float) -> None:
    state = (torch.zeros(2, 1),)
    with pytest.raises(ValueError, match=r"at least one possible token.* at position 0"):
        sample(lambda t, s: (torch.full((2, 3), bad), s), state, bos=0, eos=1, max_length=2)
