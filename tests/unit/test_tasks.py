import math

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss
from tests.conftest import SPECS

from layerlab import tasks
from layerlab.contract import IGNORE, DataSpec, Mismatch
from layerlab.tasks.classify import Classify
from layerlab.tasks.forecast import Forecast
from layerlab.tasks.next_token import NextToken, sample
from layerlab.tasks.regress import Regress

CLASSIFY = SPECS["vector", "classify"]
FORECAST = SPECS["series", "forecast"]


def figures(task, out, y, cuts):
    total = sum(task.measure(o, t)[1] for o, t in zip(out.split(cuts), y.split(cuts), strict=True))
    return task.report(total.tolist())


def test_classify_equals_scikit_learn_whatever_the_batches():
    torch.manual_seed(0)
    out, y = torch.randn(50, 3), torch.randint(0, 3, (50,))
    task = Classify(CLASSIFY)
    found = figures(task, out, y, [7, 40, 3])
    p = out.softmax(1).numpy()
    assert found["nll"] == pytest.approx(log_loss(y, p / p.sum(1, keepdims=True)), rel=1e-5)
    assert found["loss"] == found["nll"]
    assert found["acc"] == pytest.approx(float((p.argmax(1) == y.numpy()).mean()))
    more = task.metrics(out, y)
    assert more["f1"] == pytest.approx(f1_score(y, p.argmax(1), average="macro"), rel=1e-5)
    assert more["balanced_acc"] == pytest.approx(balanced_accuracy_score(y, p.argmax(1)), rel=1e-5)


def test_label_smoothing_changes_the_loss_and_not_the_nll():
    torch.manual_seed(0)
    out, y = torch.randn(20, 3), torch.randint(0, 3, (20,))
    smooth = Classify(CLASSIFY, label_smoothing=0.1)
    found = figures(smooth, out, y, [20])
    target = torch.full((20, 3), 0.1 / 3).scatter(1, y[:, None], 0.9 + 0.1 / 3)
    assert found["loss"] == pytest.approx(float(-(target * out.log_softmax(1)).sum(1).mean()), rel=1e-5)
    assert found["nll"] == pytest.approx(figures(Classify(CLASSIFY), out, y, [20])["nll"])


def test_binary_is_one_sigmoid_and_survives_extreme_logits():
    spec = CLASSIFY.replace(out=2)
    task = Classify(spec, labels="binary")
    assert task.model_spec.out == 1
    out, y = torch.tensor([[200.0], [-200.0], [0.5]], requires_grad=True), torch.tensor([0, 0, 1])
    loss, sums = task.measure(out, y)
    loss.backward()
    assert torch.isfinite(out.grad).all()
    assert float(loss.detach()) == pytest.approx((200 + 0 + math.log(1 + math.exp(-0.5))) / 3, rel=1e-5)
    assert task.report(sums.tolist())["acc"] == pytest.approx(2 / 3)
    p = task.probabilities(out.detach())
    torch.testing.assert_close(p.sum(1), torch.ones(3))
    with pytest.raises(Mismatch, match="3 classes; use multiclass"):
        Classify(CLASSIFY, labels="binary")


def test_multilabel_scores_every_label():
    task = Classify(CLASSIFY.replace(classes=("a", "b", "c"), target=("a", "b", "c")), labels="multilabel")
    out, y = torch.tensor([[2.0, -2.0, 2.0], [-2.0, -2.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert task.report(task.measure(out, y)[1].tolist())["acc"] == pytest.approx(5 / 6)
    assert 0 < task.metrics(out, y)["f1"] <= 1


def test_next_token_is_a_mean_over_symbols_never_over_batches():
    torch.manual_seed(0)
    task = NextToken(SPECS["tokens", "next_token"])
    out, y = torch.randn(6, 9, 7), torch.randint(0, 7, (6, 9))
    y[0, 2:] = IGNORE
    y[1, 5:] = IGNORE
    p = out.log_softmax(-1)
    mask = y != IGNORE
    expected = -p.gather(-1, y.clamp(min=0)[..., None])[..., 0][mask].mean()
    for cuts in ([6], [1, 5], [2, 2, 2]):
        assert figures(task, out, y, cuts)["nll"] == pytest.approx(float(expected), rel=1e-5)
    assert figures(task, out, y, [6])["acc"] == pytest.approx(float((out.argmax(-1) == y)[mask].float().mean()))


def test_regress_and_r2():
    spec = SPECS["vector", "regress"]
    task = Regress(spec)
    y = torch.randn(40, 1)
    out = y + 0.5
    found = figures(task, out, y, [30, 10])
    assert found["mse"] == pytest.approx(0.25, rel=1e-4)
    assert found["mae"] == pytest.approx(0.5, rel=1e-4)
    assert task.metrics(out, y)["r2"] == pytest.approx(1 - 0.25 / float(y.var(correction=0)), rel=1e-4)


@pytest.mark.parametrize("normalise", ["last", "revin"])
@pytest.mark.parametrize("channels", ["independent", "joint"])
def test_the_wrapper_undoes_what_it_does(normalise, channels):
    """A core that answers 0 forecasts the last value, or the mean: in the scale that went in."""
    task = Forecast(FORECAST, normalise=normalise, channels=channels, patch=4)
    x = torch.randn(5, 12, 2) * 3 + 7
    out = task.apply(lambda z: torch.zeros(len(z), task.model_spec.out), x)
    expected = x[:, -1:] if normalise == "last" else x.mean(1, keepdim=True)
    torch.testing.assert_close(out, expected.expand(5, 3, 2))


def test_independent_channels_are_answered_one_by_one():
    task = Forecast(FORECAST, normalise="none", channels="independent", patch=1)
    torch.manual_seed(0)
    W = torch.randn(12, 3)
    x = torch.randn(4, 12, 2)
    out = task.apply(lambda z: z.flatten(1) @ W, x)
    for c in range(2):
        torch.testing.assert_close(out[:, :, c], x[:, :, c] @ W)


def test_patches_keep_the_order_of_time():
    task = Forecast(FORECAST, normalise="none", channels="joint", patch=4)
    assert task.model_spec.shape == (3, 8)
    seen = {}
    x = torch.arange(24.0).reshape(1, 12, 2)
    task.apply(lambda z: seen.setdefault("z", z).new_zeros(len(z), 6), x)
    assert torch.equal(seen["z"].reshape(1, 12, 2), x)


def test_auto_follows_the_data():
    assert Forecast(FORECAST).channels == "independent"
    assert Forecast(FORECAST).patch == 6
    part = FORECAST.replace(target=("v",), out=3)
    task = Forecast(part)
    assert task.channels == "joint"
    x = torch.randn(2, 12, 2)
    assert task.apply(lambda z: torch.zeros(len(z), 3), x).shape == (2, 3, 1)
    with pytest.raises(Mismatch, match="only 1 of 2 channels are targets"):
        Forecast(part, channels="independent")
    with pytest.raises(Mismatch, match=r"task\.patch=5: does not divide data\.lookback=12"):
        Forecast(FORECAST, patch=5)


@pytest.mark.parametrize(
    "task",
    [Classify(CLASSIFY, label_smoothing=0.2), Forecast(FORECAST, patch=3), NextToken(SPECS["tokens", "next_token"])],
    ids=lambda t: t.name,
)
def test_a_task_is_restored_from_plain_values(task):
    again = tasks.restore(task.to_dict())
    assert type(again) is type(task)
    assert again.to_dict() == task.to_dict()
    assert tasks.restore(task.to_dict() | {"class": "os.system"}) is None


def test_a_task_refuses_data_of_another():
    with pytest.raises(Mismatch, match="task=regress: data=data offers classify; try task=classify"):
        Regress(CLASSIFY)


def test_sampling_follows_the_probabilities_and_the_seed():
    p = torch.tensor([0.1, 0.6, 0.3])

    def model(ids):
        return p.log().expand(*ids.shape, 3)

    start = torch.zeros(4000, 1, dtype=torch.long)
    draws = [
        sample(model, start, context=4, length=1, generator=torch.Generator().manual_seed(s))[:, 1] for s in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    torch.testing.assert_close(torch.bincount(draws[0]) / 4000, p, atol=0.03, rtol=0)
    greedy = sample(model, start[:2], context=4, length=5, temperature=0)
    assert greedy[:, 1:].eq(1).all()
    stopped = sample(model, start[:2], context=4, length=5, temperature=0, stop=1)
    assert stopped.shape == (2, 2)


def test_a_spec_of_the_wrong_kind_of_labels_is_refused():
    many = DataSpec(kind="vector", task="classify", shape=(3,), out=2, classes=("a", "b"), target=("a", "b"))
    with pytest.raises(Mismatch, match=r"use task\.labels=multilabel"):
        Classify(many)
    with pytest.raises(Mismatch, match="one class per example"):
        Classify(CLASSIFY, labels="multilabel")


def test_intervals_hold_their_share_of_errors_like_those_they_were_fitted_to():
    spec = SPECS["series", "forecast"]
    task = Forecast(spec, interval=0.8)
    g = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 3.0])  # of the errors of the two targets

    def errors(n):
        y = torch.randn(n, 3, 2, generator=g) * scale
        return torch.zeros_like(y), y

    out, y = errors(999)
    found = task.calibrate([(out[:500], y[:500]), (out[500:], y[500:])])
    half = torch.tensor(found["half_width"])
    by_hand = y.abs().sort(0).values[799]  # the 800th of 1000, counting the one to come
    torch.testing.assert_close(half, by_hand)
    torch.testing.assert_close(half.mean(0), 1.2816 * scale, rtol=0.08, atol=0)  # of a normal, 80 %
    figures = task.metrics(*errors(4000))
    assert figures["coverage"] == pytest.approx(0.8, abs=0.02)
    assert figures["width"] == pytest.approx(float(2 * half.mean()))


def test_too_few_windows_or_interval_0_give_no_interval():
    spec = SPECS["series", "forecast"]
    few = (torch.zeros(8, 3, 2), torch.randn(8, 3, 2))
    assert Forecast(spec).calibrate([few]) == {}  # 90 % needs nine
    assert Forecast(spec, interval=0.0).calibrate([few]) == {}
    assert Forecast(spec, interval=0.5).calibrate([few])["interval"] == 0.5
