import pytest
import torch
from tests.conftest import SPECS

from layerlab.models.gru import GRU
from layerlab.models.lstm import LSTM
from layerlab.models.rnn import RNN

SPEC = SPECS["tokens", "next_token"]
X = torch.tensor([[0, 3, 1, 4, 2, 6, 5, 1, 2]])


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kind", [RNN, GRU, LSTM])
def test_the_fused_kernel_equals_the_cell_written_out_by_its_formulas(kind, depth):
    torch.manual_seed(0)
    model = kind(SPEC, width=6, depth=depth).double()
    inside = model.inside(X)
    assert len(inside) == depth
    torch.testing.assert_close(model.features(X), inside[-1]["hidden"], rtol=1e-10, atol=1e-12)


def test_the_relu_rnn_too():
    model = RNN(SPEC, width=6, activation="relu", init="identity").double()
    torch.testing.assert_close(model.features(X), model.inside(X)[0]["hidden"], rtol=1e-10, atol=1e-12)


def test_an_lstm_has_four_blocks_and_two_biases():
    body = LSTM(SPEC, width=6).body
    assert body.weight_ih_l0.shape[0] == body.weight_hh_l0.shape[0] == 4 * 6
    assert body.bias_ih_l0.shape == body.bias_hh_l0.shape == (4 * 6,)


@pytest.mark.parametrize("gate", ["forget", "input", "output"])
def test_an_ablated_gate_stays_at_1_through_training(gate):
    torch.manual_seed(0)
    model = LSTM(SPEC, width=6, depth=2, ablate=gate)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, weight_decay=0.0)
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(X)[0, :-1], X[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for layer in model.inside(X):
        for name in ("forget", "input", "output"):
            assert torch.equal(layer[name], torch.ones_like(layer[name])) == (name == gate)


def test_orthogonal_and_identity_keep_the_length_of_a_state():
    for init in ("orthogonal", "identity"):
        U = RNN(SPEC, width=6, init=init).body.weight_hh_l0
        torch.testing.assert_close(U @ U.T, torch.eye(6), atol=1e-5, rtol=0)


def norms_at_init(model, lags, seed):
    """Length of d(v . h_T) / dx_(T - k) relative to k = 0, float64, for a one-hot letter stream."""
    g = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.one_hot(torch.randint(0, 64, (1, 200), generator=g), 64).double().requires_grad_()
    h = model.body(x)[0][0, -1]
    (h @ torch.randn(len(h), generator=g, dtype=torch.float64)).backward()
    size = x.grad[0].norm(dim=1)
    return [float(size[-1 - k] / size[-1]) for k in lags]


@pytest.mark.parametrize(
    ("kind", "options", "lag", "low", "high"),
    [
        (RNN, {}, 50, 0, 1e-8),
        (LSTM, {"forget_bias": "torch"}, 50, 0, 1e-6),
        (LSTM, {"forget_bias": 3}, 199, 0.03, 100),
    ],
    ids=str,
)
def test_what_was_50_steps_ago_barely_moves_the_gradient_unless_the_forget_gate_is_open(kind, options, lag, low, high):
    for seed in range(3):
        torch.manual_seed(seed)
        model = kind(SPEC, width=64, **options).double()
        assert low <= norms_at_init(model, [lag], seed)[0] <= high


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
