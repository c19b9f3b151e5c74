"""The NumPy engine against torch, in float64, and against central differences."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from layerlab.data.digits import Digits
from layerlab.models.mlp import MLP
from layerlab.nn.autograd import Array, conv2d, softmax_cross_entropy, unfold

RNG = np.random.default_rng(0)
A, B, V, M = RNG.normal(size=(4, 5)), RNG.normal(size=(4, 5)), RNG.normal(size=5), RNG.normal(size=(5, 3))
IMAGE, FILTERS, BIAS = RNG.normal(size=(2, 3, 6, 5)), RNG.normal(size=(4, 3, 3, 3)), RNG.normal(size=4)
IDS = np.array([0, 2, 4, 1])

CASES = {  # name -> (ours, torch's, inputs)
    "add, broadcast": (lambda a, v: a + v, torch.add, (A, V)),
    "a row against a column": (lambda a, b: a * b, torch.mul, (A[:, :1], V)),
    "subtract": (lambda a, b: a - b, torch.sub, (A, B)),
    "number minus array": (lambda a: 2.0 - a, lambda a: 2.0 - a, (A,)),
    "array of numpy minus array": (lambda a: B - a, lambda a: torch.tensor(B) - a, (A,)),
    "divide": (lambda a, b: a / (b * b + 1), lambda a, b: a / (b * b + 1), (A, B)),
    "power": (lambda a: (a * a + 1) ** -1.5, lambda a: (a * a + 1) ** -1.5, (A,)),
    "matmul": (lambda a, m: a @ m, torch.matmul, (A, M)),
    "matmul, numpy first": (lambda m: A @ m, lambda m: torch.tensor(A) @ m, (M,)),
    "batched matmul with one matrix": (lambda x, m: x @ m, torch.matmul, (RNG.normal(size=(2, 4, 5)), M)),
    "relu": (Array.relu, torch.relu, (A,)),
    "tanh": (Array.tanh, torch.tanh, (A,)),
    "sigmoid": (Array.sigmoid, torch.sigmoid, (40 * A,)),
    "exp": (Array.exp, torch.exp, (A,)),
    "log": (lambda a: (a * a + 1).log(), lambda a: (a * a + 1).log(), (A,)),
    "sum over an axis": (lambda a: a.sum(1), lambda a: a.sum(1), (A,)),
    "mean, kept": (lambda a: a - a.mean(0, keepdims=True), lambda a: a - a.mean(0, keepdim=True), (A,)),
    "reshape and transpose": (
        lambda x: x.reshape(6, 15).transpose(1, 0),
        lambda x: x.reshape(6, 15).T,
        (IMAGE[:, :, :, :5].reshape(-1)[:90],),
    ),
    "used twice": (lambda a: a * a + a.tanh(), lambda a: a * a + a.tanh(), (A,)),
    "unfold": (lambda x: unfold(x, 3, 1), lambda x: F.unfold(x, 3, padding=1).transpose(1, 2), (IMAGE,)),
    "conv2d": (
        lambda x, w, b: conv2d(x, w, b, 1),
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        (IMAGE, FILTERS, BIAS),
    ),
    "softmax cross-entropy": (
        lambda a: softmax_cross_entropy(30 * a, IDS),
        lambda a: F.cross_entropy(30 * a, torch.tensor(IDS)),
        (A,),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward_equal_torch(name):
    ours, theirs, inputs = CASES[name]
    arrays = [Array(v, trained=True) for v in inputs]
    tensors = [torch.tensor(v, requires_grad=True) for v in inputs]
    out, expected = ours(*arrays), theirs(*tensors)
    np.testing.assert_allclose(out.value, expected.detach().numpy(), rtol=1e-10, atol=1e-10)
    weights = np.random.default_rng(1).normal(size=out.shape)
    (out * weights).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    for array, tensor in zip(arrays, tensors, strict=True):
        np.testing.assert_allclose(array.grad, tensor.grad.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_central_differences(name):
    ours, _, inputs = CASES[name]

    def loss(*values):
        out = ours(*(Array(v, trained=True) for v in values))
        return (out * np.random.default_rng(1).normal(size=out.shape)).sum()

    arrays = [Array(v, trained=True) for v in inputs]
    out = ours(*arrays)
    (out * np.random.default_rng(1).normal(size=out.shape)).sum().backward()
    h = 1e-6
    for i, value in enumerate(inputs):
        for at in [tuple(RNG.integers(0, n) for n in value.shape) for _ in range(4)]:
            step = np.zeros_like(value)
            step[at] = h
            up, down = ([v + s * step if j == i else v for j, v in enumerate(inputs)] for s in (1, -1))
            slope = float(loss(*up).value - loss(*down).value) / (2 * h)
            assert arrays[i].grad[at] == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_gradients_add_up_over_passes_until_they_are_cleared():
    a = Array(A, trained=True)
    for n in (1, 2, 3):
        a.sum().backward()
        np.testing.assert_array_equal(a.grad, np.full_like(A, n))
    a.grad = None
    a.sum().backward()
    np.testing.assert_array_equal(a.grad, np.ones_like(A))


def test_a_deep_chain_needs_no_recursion_and_an_array_used_often_is_visited_once():
    a = Array(np.array([1.0]), trained=True)
    b = a
    for _ in range(3000):
        b = (b + b) * 0.5
    b.sum().backward()
    np.testing.assert_allclose(a.grad, [1.0])


def test_backward_starts_at_one_number():
    with pytest.raises(ValueError, match=r"starts at a loss of one number, this has shape \(4, 5\)"):
        Array(A).backward()


def test_an_mlp_trained_on_digits_reaches_torchs_weights():
    data = Digits()
    x, y = data.splits["train"].read(torch.arange(1024), None)
    torch.manual_seed(0)
    model = MLP(data.spec, width=32).double()
    weights = [Array(p.detach().numpy().copy(), trained=True) for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(500):
        at = slice(64 * (step % 16), 64 * (step % 16) + 64)
        loss = F.cross_entropy(model(x[at].double()), y[at])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        h = Array(x[at].flatten(1).numpy())
        for i in (0, 2):
            h = (h @ weights[i].transpose(1, 0) + weights[i + 1]).relu()
        ours = softmax_cross_entropy(h @ weights[4].transpose(1, 0) + weights[5], y[at].numpy())
        ours.backward()
        for w in weights:
            w.value = w.value - 0.1 * w.grad
            w.grad = None
    assert float(loss.detach()) < 0.1
    for w, p in zip(weights, model.parameters(), strict=True):
        np.testing.assert_allclose(w.value, p.detach().numpy(), rtol=0, atol=1e-8)
