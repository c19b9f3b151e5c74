"""Definitions and identities of the text, each under the id that src/layerlab/claims/statements.yaml gives it."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerlab.contract import DataSpec
from layerlab.models.cnn import CNN
from layerlab.models.lstm import LSTM
from layerlab.models.mlp import MLP
from layerlab.models.pretrained import Pretrained
from layerlab.models.rnn import RNN
from layerlab.nn.activation import activation

IMAGE = DataSpec(kind="image", task="classify", shape=(1, 28, 28), out=10, name="made up", mean=(0.0,), std=(1.0,))
VECTOR = DataSpec(kind="vector", task="classify", shape=(6,), out=10, name="made up")
WORDS = DataSpec(
    kind="tokens", task="next_token", shape=(8,), out=5, name="made up", vocabulary=tuple("abcde"), pad=None
)


@pytest.fixture
def z():
    return torch.randn(64, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3


def test_layer_parallel():
    """L8: a layer is its neurons, one by one."""
    layer, x = nn.Linear(6, 5).double(), torch.randn(4, 6, dtype=torch.float64)
    one_by_one = torch.stack([(x * w).sum(1) + b for w, b in zip(layer.weight, layer.bias, strict=True)], 1)
    assert torch.allclose(layer(x), one_by_one, atol=1e-6)


def test_forward_order():
    """L8: a prediction is a fold of the layers; each is called once, from left to right."""
    model, x = MLP(VECTOR, width=8, depth=3).double(), torch.randn(4, 6, dtype=torch.float64)
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    called: list[nn.Module] = []
    for m in linears:
        m.register_forward_hook(lambda m, *_: called.append(m))
    out = model(x)
    assert called == linears
    folded = x
    for m in linears[:-1]:
        folded = m(folded).relu()
    assert torch.allclose(out, linears[-1](folded), atol=1e-6)


def test_chain_rule():
    """L13: autograd, the rule written out, a custom Function and checkpointing agree."""
    from torch.utils.checkpoint import checkpoint

    class Squash(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x.tanh()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, grad):
            (y,) = ctx.saved_tensors
            return grad * (1 - y**2)

    x = torch.randn(5, 3, dtype=torch.float64)
    a, b = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((3, 4), (4, 1)))
    h = (x @ a).tanh()
    by_hand = x.T @ ((torch.ones(5, 1, dtype=torch.float64) @ b.T) * (1 - h**2))

    def gradient(squash):
        (g,) = torch.autograd.grad((squash(x @ a) @ b).sum(), [a])
        return g

    for squash in (torch.tanh, Squash.apply, lambda v: checkpoint(torch.tanh, v, use_reentrant=False)):
        assert torch.allclose(gradient(squash), by_hand, rtol=1e-10, atol=0)


def test_relu_formula(z):
    """L19, L20: max(0, x), whose derivative at 0 is taken as 0; leaky max(.01 x, x)."""
    zero = torch.zeros(1, requires_grad=True)
    (slope,) = torch.autograd.grad(activation("relu")(zero).sum(), [zero])
    assert slope == 0
    assert torch.equal(activation("relu")(z), z.clamp(min=0))
    assert torch.equal(activation("leaky_relu")(z), torch.maximum(0.01 * z, z))


def test_sigmoid_binary(z):
    """L21: the sigmoid is a softmax of two; its steepest slope is 1/4; with logits the loss stays finite."""
    two = torch.stack([z, torch.zeros_like(z)], -1).softmax(-1)[..., 0]
    assert torch.allclose(z.sigmoid(), two, atol=1e-15)
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64, requires_grad=True)
    slopes = [torch.autograd.grad(f(x).sum(), [x])[0].max() for f in (torch.sigmoid, torch.tanh)]
    assert [float(s) for s in slopes] == pytest.approx([0.25, 1.0])
    far = torch.tensor([-200.0, 200.0], requires_grad=True)
    wrong = torch.tensor([1.0, 0.0])
    (with_logits,) = torch.autograd.grad(F.binary_cross_entropy_with_logits(far, wrong), [far])
    assert with_logits.isfinite().all()
    assert bool((with_logits != 0).all())
    plain = -(wrong * far.sigmoid().log() + (1 - wrong) * (1 - far.sigmoid()).log())
    assert not plain.isfinite().all()


def test_tanh_formula(z):
    """L22: tanh x = 2 sigmoid(2x) - 1; the formula of the table overflows where the library's does not."""
    assert torch.allclose(z.tanh(), 2 * (2 * z).sigmoid() - 1, atol=1e-15)
    x = torch.tensor([89.0, -89.0])
    assert ((x.exp() - (-x).exp()) / (x.exp() + (-x).exp())).isnan().all()
    assert x.tanh().tolist() == [1, -1]


def test_softmax_formula(z):
    """L23: rows sum to 1; a shift changes nothing; the formula of the table overflows; cross-entropy is -log of it."""
    assert torch.allclose(z.softmax(1).sum(1), torch.ones(64, dtype=torch.float64), atol=1e-6)
    assert torch.allclose((z + 100).softmax(1), z.softmax(1), atol=1e-12)
    large = torch.tensor([[89.0, 89.0]])
    assert (large.exp() / large.exp().sum()).isnan().all()
    assert large.softmax(1).tolist() == [[0.5, 0.5]]
    y = torch.arange(64) % 7
    loss = F.cross_entropy(z, y)
    assert torch.allclose(loss, -z.softmax(1)[torch.arange(64), y].log().mean())
    assert torch.allclose(loss, F.cross_entropy(z.log_softmax(1), y))


def test_softmax_floor():
    """L23: a net that knows nothing has ln C; with the softmax taken twice no answer is below -ln(e / (e + C - 1))."""
    torch.manual_seed(0)
    x, y = torch.randn(512, 6), torch.arange(512) % 10
    loss = F.cross_entropy(MLP(VECTOR, width=64)(x).detach(), y)
    assert float(loss) == pytest.approx(math.log(10), abs=0.1)
    perfect = F.one_hot(y, 10) * 1e4
    assert float(F.cross_entropy(perfect.softmax(1), y)) == pytest.approx(-math.log(math.e / (math.e + 9)), abs=1e-5)


def test_gelu_formula():
    """L24: x Phi(x); its minimum is -.16997 at -.7518, so it is not monotone; the tanh form is within 5e-4."""
    x = torch.linspace(-4, 4, 80001, dtype=torch.float64)
    y = activation("gelu")(x)
    assert torch.allclose(y, x * torch.special.ndtr(x), atol=1e-15)
    assert float(y.min()) == pytest.approx(-0.16997, abs=1e-5)
    assert float(x[y.argmin()]) == pytest.approx(-0.7518, abs=1e-3)
    assert float((y - F.gelu(x, approximate="tanh")).abs().max()) < 5e-4


def test_dynamic_graph():
    """L27: the graph is what ran, an `if` and a `while` on the data included."""

    def f(x):
        while x.norm() < 10:
            x = x * 2 if x.sum() > 0 else x * 3
        return (x**2).sum()

    for start in ([0.3, 0.4], [-0.3, -0.4]):
        x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        (g,) = torch.autograd.grad(f(x), [x])
        steps = torch.eye(2, dtype=torch.float64) * 1e-6
        numeric = torch.stack([(f(x + h) - f(x - h)) / 2e-6 for h in steps])
        assert torch.allclose(g, numeric, rtol=1e-6)


def test_numpy_like():
    """L27: an array goes to a tensor and back without a copy, and broadcasts alike."""
    import numpy as np

    a = np.arange(6.0).reshape(2, 3)
    t = torch.from_numpy(a)
    t[0, 0] = 7
    assert a[0, 0] == 7
    assert np.array_equal((t * t[:, :1]).numpy(), a * a[:, :1])


def test_convolution_cost():
    """L31, L32: 3 x 3 on 28 x 28 gives 26 x 26; 32 filters have 320 parameters, a dense layer to the same maps 17 M."""
    conv = nn.Conv2d(1, 32, 3)
    out = conv(torch.zeros(1, 1, 28, 28))
    assert out.shape == (1, 32, 26, 26)
    assert sum(p.numel() for p in conv.parameters()) == 320
    assert (28 * 28 + 1) * out.numel() == 16_981_120


def test_max_pool():
    """L34: keeps the largest of each 2 x 2, halves the sides; a global maximum does not see where it was."""
    x = torch.randn(2, 3, 8, 8)
    pooled = nn.MaxPool2d(2)(x)
    assert pooled.shape == (2, 3, 4, 4)
    assert torch.equal(pooled, x.unflatten(2, (4, 2)).unflatten(4, (4, 2)).amax((3, 5)))
    cnn = CNN(IMAGE.replace(shape=(1, 16, 16)), width=4, depth=2, head="gmp", padding="circular").eval()
    image = torch.randn(3, 1, 16, 16)
    assert torch.allclose(cnn(image), cnn(image.roll((4, 8), (2, 3))), atol=1e-5)


def test_new_head():
    """L41, L63: only the head's C (1,280 + 1) parameters are new."""
    model = Pretrained(IMAGE.replace(shape=(1, 64, 64), out=7), weights=None)
    assert sum(p.numel() for p in model.head.parameters()) == 7 * (1280 + 1)


def test_future_is_dark():
    """L54, L60: read from left to right, "river" has no influence at all on the state at "bank"; attention has some."""
    for model in (RNN(WORDS, width=8), LSTM(WORDS, width=8)):
        ids = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]])
        other = ids.clone()
        other[0, 4] = 0  # after the word at 1
        assert torch.equal(model(ids)[:, :4], model(other)[:, :4])
        assert not torch.equal(model(ids)[:, 4:], model(other)[:, 4:])
    both = nn.LSTM(4, 8, bidirectional=True, batch_first=True)
    x = torch.randn(1, 8, 4)
    changed = x.clone()
    changed[0, 4] += 1
    assert not torch.equal(both(x)[0][:, 1], both(changed)[0][:, 1])
