"""Models without a gradient: exact against a second way to compute them, and against the published tables."""

import math
from collections import Counter, defaultdict

import pytest
import torch
from statsmodels.tsa.holtwinters import ExponentialSmoothing
from tests.conftest import SPECS, shared

from layerlab.contract import IGNORE, Mismatch
from layerlab.models.dlinear import DLinear
from layerlab.models.ets import ETS
from layerlab.models.naive import Naive
from layerlab.models.ngram import NGram
from layerlab.models.nlinear import NLinear
from layerlab.models.ridge import STRENGTHS, Ridge
from layerlab.models.seasonal_naive import SeasonalNaive
from layerlab.tasks import Forecast

WINDOW = Forecast(SPECS["series", "forecast"].replace(season=4)).raw_window().model_spec  # (12, 1) -> 3


def by_hand(words, order):
    """Witten-Bell with dictionaries: the probability of a symbol after a context."""
    counts = [defaultdict(Counter) for _ in range(order)]
    for word in words:
        padded = [0] * (order - 1) + [*word, 0]
        for i in range(order - 1, len(padded)):
            for n in range(order):
                counts[n][tuple(padded[i - n : i])][padded[i]] += 1

    def p(context, symbol):
        found = (counts[0][()][symbol] + 1) / (sum(counts[0][()].values()) + 7)
        for n in range(1, order):
            seen = counts[n].get(tuple(context[len(context) - n :]))
            if seen:
                m, u = sum(seen.values()), len(seen)
                found = (seen[symbol] + u * found) / (m + u)
        return found

    return p


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_ngram_equals_witten_bell_by_hand_for_every_symbol(order):
    generator = torch.Generator().manual_seed(0)
    words = [torch.randint(1, 7, (int(n),), generator=generator).tolist() for n in torch.randint(1, 8, (60,))]
    x = torch.zeros(60, 9, dtype=torch.long)
    y = torch.full((60, 9), IGNORE)
    for i, w in enumerate(words):
        x[i, 1 : len(w) + 1] = torch.tensor(w)
        y[i, : len(w) + 1] = torch.tensor([*w, 0])
    model = NGram(SPECS["tokens", "next_token"], order=order)
    model.solve([(x[:20], y[:20]), (x[20:], y[20:])], [])
    log_p = model(x)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(60, 9))
    p = by_hand(words, order)
    for i in range(10):
        for t in range(len(words[i]) + 1):
            context = [0] * (order - 1) + words[i][:t]
            expected = [math.log(p(context, s)) for s in range(7)]
            assert log_p[i, t].tolist() == pytest.approx(expected, rel=1e-5), (i, t)


def test_add_k_counts_the_longest_context_alone():
    model = NGram(SPECS["tokens", "next_token"], order=2, smoothing="add_k", k=0.5)
    x, y = torch.tensor([[0, 1, 2]]), torch.tensor([[1, 2, 1]])
    model.solve([(x, y)], [])
    assert model(x)[0, 1].exp().tolist() == pytest.approx([0.5 / 4.5 if s != 2 else 1.5 / 4.5 for s in range(7)])


def test_ngram_tables_survive_a_checkpoint_and_too_long_an_order_is_refused():
    spec = SPECS["tokens", "next_token"]
    model = NGram(spec, order=3)
    x = torch.tensor([[0, 1, 2, 3]])
    model.solve([(x, torch.tensor([[1, 2, 3, 0]]))], [])
    again = NGram(spec, order=3)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model(x))
    with pytest.raises(ValueError, match=r"model\.order=30: too long for 7 symbols; at most \d+"):
        NGram(spec, order=30)


def test_naive_and_seasonal_naive_repeat_what_was():
    x = torch.arange(12.0).reshape(1, 12, 1)
    assert Naive(WINDOW)(x).tolist() == [[11, 11, 11]]
    assert Naive(WINDOW, over=4)(x).tolist() == [[9.5, 9.5, 9.5]]
    assert SeasonalNaive(WINDOW)(x).tolist() == [[8, 9, 10]]
    assert SeasonalNaive(WINDOW, season=2)(x).tolist() == [[10, 11, 10]]
    with pytest.raises(ValueError, match=r"model\.season=13: longer than data\.lookback=12"):
        SeasonalNaive(WINDOW, season=13)
    with pytest.raises(ValueError, match="the data names no season"):
        SeasonalNaive(WINDOW.replace(season=0))


@pytest.mark.parametrize("subtract_last", [True, False])
def test_ridge_equals_the_normal_equations_and_chooses_on_val(subtract_last):
    torch.manual_seed(0)
    x, y = torch.randn(200, 12, 1), torch.randn(200, 3)
    y += x[:, -3:, 0]
    model = Ridge(WINDOW, subtract_last=subtract_last)
    model.solve([(x[:70], y[:70]), (x[70:150], y[70:150])], [(x[150:], y[150:])])
    X, offset = x[..., 0].double(), torch.zeros(200, 1, dtype=torch.float64)
    if subtract_last:
        X, offset = X - X[:, -1:], X[:, -1:]
    else:
        X = torch.cat([X, torch.ones(200, 1)], 1)
    Y = y.double() - offset
    A, B = X[:150], Y[:150]
    solved = [torch.linalg.solve(A.T @ A + 0.01 * s * 150 * torch.eye(A.shape[1]), A.T @ B) for s in STRENGTHS]
    best = min(solved, key=lambda w: float(((X[150:] @ w - Y[150:]) ** 2).sum()))
    torch.testing.assert_close(model(x), (X @ best + offset).float())


def test_linear_forecasts_equal_their_formulas():
    torch.manual_seed(0)
    x = torch.randn(5, 12, 1)
    n = NLinear(WINDOW)
    last = x[:, -1]
    torch.testing.assert_close(n(x), (x[..., 0] - last) @ n.head.weight.T + n.head.bias + last)
    torch.testing.assert_close(n(x + 7), n(x) + 7, atol=1e-4, rtol=1e-4)
    d = DLinear(WINDOW, kernel=5)
    padded = torch.cat([x[:, :1], x[:, :1], x, x[:, -1:], x[:, -1:]], 1)[..., 0]
    trend = torch.stack([padded[:, i : i + 5].mean(1) for i in range(12)], 1)
    torch.testing.assert_close(d.features(x), torch.cat([trend, x[..., 0] - trend], 1))


def test_a_model_of_the_raw_window_refuses_a_wrapper():
    with pytest.raises(Mismatch, match=r"task\.patch=4: this model reads the raw window"):
        Forecast(SPECS["series", "forecast"], patch=4).raw_window()


NAMES = {1: 2.815, 2: 2.450, 3: 2.200, 4: 2.039, 5: 1.998}
FIRST = {1: 2.811, 2: 2.350, 3: 2.092, 4: 1.974, 5: 2.006}


@pytest.mark.parametrize(("order", "nll"), NAMES.items())
def test_makemore_has_the_exact_table(order, nll, train):
    path = shared("names.txt")
    run = train("model=ngram", f"model.order={order}", "data=makemore", f"data.path={path}")
    assert round(run.metrics["test/nll"], 3) == nll


@pytest.mark.parametrize(("order", "nll"), FIRST.items())
def test_census_names_have_the_exact_table(order, nll, train):
    assert round(train("model=ngram", f"model.order={order}", "data=names").metrics["test/nll"], 3) == nll


@pytest.mark.parametrize(("order", "nll"), [(2, 2.486), (5, 1.669)])
def test_shakespeare_has_the_exact_table(order, nll, train):
    path = shared("tinyshakespeare.txt")
    long = "data.context=4096"  # a context that a window cuts off is not counted
    run = train("model=ngram", f"model.order={order}", "data=shakespeare", f"data.path={path}", long)
    assert round(run.metrics["test/nll"], 3) == nll


@pytest.mark.parametrize(
    ("overrides", "mse", "mae"),
    [
        (["model=naive"], 1.294, 0.713),
        (["model=naive", "model.over=24"], 0.727, 0.570),
        (["model=seasonal_naive"], 0.512, 0.433),
        (["model=seasonal_naive", "model.season=168"], 0.657, 0.509),
        (["model=ridge", "data.lookback=96", "model.subtract_last=false"], 0.381, 0.393),
        (["model=ridge", "data.lookback=96"], 0.383, 0.392),
        (["model=ridge"], 0.370, 0.391),
        (["model=ridge", "data.horizon=192"], 0.403, 0.411),
        (["model=ridge", "data.horizon=336"], 0.426, 0.424),
        (["model=ridge", "data.horizon=720"], 0.422, 0.443),
    ],
    ids=str,
)
def test_etth1_has_the_exact_table(overrides, mse, mae, train):
    run = train(*overrides, "data=etth1", f"data.path={shared('ETTh1.csv')}")
    assert (round(run.metrics["test/mse"], 3), round(run.metrics["test/mae"], 3)) == pytest.approx(
        (mse, mae), abs=1.01e-3
    )
    assert len(run.data.splits["test"]) == 2881 - run.data.spec.horizon


@pytest.mark.parametrize("T", [1, 2, 3, 6])
def test_an_ngram_answers_sequences_shorter_than_its_order(T):
    model = NGram(SPECS["tokens", "next_token"], order=5)
    x, y = torch.randint(1, 7, (20, 9)), torch.randint(0, 7, (20, 9))
    model.solve([(x, y)], [])
    torch.testing.assert_close(model(x[:, :T]), model(x)[:, :T])


def test_ets_is_what_statsmodels_forecasts_from_the_window(train):
    run = train("model=ets", "data=series")
    x, _ = next(iter(run.data.batches("test")))
    expected = ExponentialSmoothing(
        x[0, :, 0].double().numpy(), trend="add", damped_trend=True, seasonal="add", seasonal_periods=12
    )
    answer = run.model.answer(x[:1])[0, :, 0]
    torch.testing.assert_close(answer.double(), torch.tensor(expected.fit().forecast(12)), rtol=1e-4, atol=1e-5)
    assert run.metrics["test/mase"] < 0.5  # statsmodels on the whole history: .47


def test_ets_leaves_out_a_season_that_the_window_cannot_hold():
    spec = SPECS["series", "forecast"].replace(shape=(24, 1), out=3, season=12, channels=(), target=())
    assert ETS(spec).season == 12
    assert ETS(spec.replace(shape=(21, 1))).season == 0
    assert ETS(spec.replace(season=52)).season == 0
    flat = torch.full((1, 24, 1), 0.3)
    torch.testing.assert_close(ETS(spec)(flat), torch.full((1, 3), 0.3))
