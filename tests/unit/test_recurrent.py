import pytest
import torch
from tests.conftest import SPECS

from layerlab.models.gru import GRU
from layerlab.models.lstm import LSTM
from layerlab.models.rnn import RNN

SPEC = SPECS["tokens", "next_token"]
X = torch.tensor([[0, 3, 1, 4, 2, 6, 5, 1, 2]])


def explicit(kind, body, x):
    """The states (T, h) of one sequence (T, width) by the formulas of the papers."""
    W, U, b, c = body.weight_ih_l0, body.weight_hh_l0, body.bias_ih_l0, body.bias_hh_l0
    h = torch.zeros(body.hidden_size, dtype=x.dtype)
    cell, states = h, []
    for step in x:
        a, r = W @ step + b, U @ h + c
        if kind is RNN:
            h = torch.tanh(a + r)
        elif kind is LSTM:
            i, f, g, o = (a + r).chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            h = o.sigmoid() * cell.tanh()
        else:
            (ar, az, an), (rr, rz, rn) = a.chunk(3), r.chunk(3)
            reset, z = (ar + rr).sigmoid(), (az + rz).sigmoid()
            h = (1 - z) * torch.tanh(an + reset * rn) + z * h
        states.append(h)
    return torch.stack(states)


@pytest.mark.parametrize("kind", [RNN, GRU, LSTM])
def test_equals_the_cell_written_out_by_its_formulas(kind):
    torch.manual_seed(0)
    model = kind(SPEC, width=6).double()
    x = model.embed(X)
    expected = explicit(kind, model.body, x[0])
    torch.testing.assert_close(model.features(X)[0], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(model(X)[0], expected @ model.head.weight.T + model.head.bias, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [RNN, GRU, LSTM])
def test_a_later_letter_never_changes_an_earlier_answer(kind):
    torch.manual_seed(0)
    model = kind(SPEC, width=6)
    other = X.clone()
    other[0, 5:] = 1
    assert torch.equal(model(X)[:, :5], model(other)[:, :5])


@pytest.mark.parametrize("value", [0, 1.0, 3, 5])
def test_forget_bias_stands_in_one_of_the_two_biases_that_add_up(value):
    h = 6
    body = LSTM(SPEC, width=h, depth=2, forget_bias=value).body
    for layer in (0, 1):
        total = getattr(body, f"bias_ih_l{layer}") + getattr(body, f"bias_hh_l{layer}")
        assert torch.equal(total[h : 2 * h], torch.full((h,), float(value)))
        assert not torch.equal(total[:h], torch.full((h,), float(value)))


def test_forget_bias_torch_leaves_the_framework_alone_and_chrono_spans_the_sequence():
    torch.manual_seed(0)
    ours = LSTM(SPEC, width=32, forget_bias="torch").body.state_dict()
    torch.manual_seed(0)
    one = LSTM(SPEC, width=32, forget_bias=1.0).body.state_dict()
    assert torch.equal(ours["weight_hh_l0"], one["weight_hh_l0"])
    assert float(ours["bias_ih_l0"].abs().max()) <= 32**-0.5
    state = LSTM(SPEC, width=4000, forget_bias="chrono").body.state_dict()
    bias = state["bias_ih_l0"] + state["bias_hh_l0"]
    forget = bias[4000:8000]
    spans = forget.exp()  # log U(1, T): the time constants are uniform
    assert 1 <= float(spans.min()) < 1.1
    assert 8.9 < float(spans.max()) <= 9.001
    assert torch.equal(bias[:4000], -forget)
    assert float(bias[8000:].abs().max()) == 0


@pytest.mark.parametrize("kind", [RNN, GRU, LSTM])
def test_padding_at_the_end_does_not_move_the_answer_of_a_classifier(kind):
    torch.manual_seed(0)
    model = kind(SPECS["tokens", "classify"], width=6)
    short = torch.tensor([[3, 1, 4]])
    padded = torch.tensor([[3, 1, 4, 0, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(model(short), model(padded))
