import pytest
import torch
from tests.conftest import SPECS, batch
from torch import nn
from torch.nn import functional as F

from layerlab.contract import Mismatch
from layerlab.models.base import Model
from layerlab.models.cnn import CNN
from layerlab.models.mlp import MLP
from layerlab.models.neuron import Neuron
from layerlab.models.transformer import Transformer
from layerlab.nn import read


def test_a_neuron_is_a_weighted_sum_and_a_bias():
    spec = SPECS["image", "classify"]
    model = Neuron(spec)
    x, _ = batch(spec)
    W, b = model.head.weight, model.head.bias
    by_hand = torch.stack(
        [torch.stack([sum(w * v for w, v in zip(W[k], e, strict=True)) + b[k] for k in range(3)]) for e in x.flatten(1)]
    )
    torch.testing.assert_close(model(x), by_hand, rtol=1e-4, atol=1e-5)


def test_an_option_without_effect_is_refused():
    with pytest.raises(ValueError, match=r"model\.context=3 .*have an effect on next_token alone"):
        MLP(SPECS["vector", "classify"], context=3)


def test_an_mlp_is_the_product_of_its_layers():
    spec = SPECS["vector", "classify"]
    model = MLP(spec, width=4, depth=2, activation="tanh")
    x, _ = batch(spec)
    (l1, l2), head = (block[0] for block in model.body), model.head
    h = torch.tanh(F.linear(torch.tanh(F.linear(x, l1.weight, l1.bias)), l2.weight, l2.bias))
    torch.testing.assert_close(model(x), F.linear(h, head.weight, head.bias))


def test_an_mlp_of_identities_collapses_to_one_affine_map():
    spec = SPECS["vector", "classify"]
    model = MLP(spec, width=16, depth=4, activation="identity").double()
    x = batch(spec)[0].double()
    zero, eye = torch.zeros(1, 5, dtype=torch.float64), torch.eye(5, dtype=torch.float64)
    b = model(zero)
    torch.testing.assert_close(model(x), x @ (model(eye) - b) + b, rtol=1e-10, atol=1e-12)


def test_the_context_mlp_sees_exactly_its_last_ids():
    spec = SPECS["tokens", "next_token"]
    model = MLP(spec, context=3).eval()
    x, _ = batch(spec)
    far, near = x.clone(), x.clone()
    far[:, 2] = (x[:, 2] + 1) % 7
    assert torch.equal(model(x)[:, 5:], model(far)[:, 5:])
    near[:, 3] = (x[:, 3] + 1) % 7
    assert not torch.equal(model(x)[:, 5], model(near)[:, 5])
    assert torch.equal(model(x)[:, :3], model(near)[:, :3])  # nothing of the future


def test_convolution_is_a_sliding_dot_product():
    conv = CNN(SPECS["image", "classify"], width=2, depth=1).body[0].conv
    x = torch.randn(1, 1, 8, 8)
    padded = F.pad(x, (1, 1, 1, 1))
    by_hand = torch.stack(
        [
            torch.stack([(padded[0, :, i : i + 3, j : j + 3] * w).sum() for i in range(8) for j in range(8)]).view(8, 8)
            for w in conv.weight
        ]
    )
    torch.testing.assert_close(conv(x)[0], by_hand, rtol=1e-4, atol=1e-5)


def test_a_cnn_reads_a_series_as_an_image_of_height_one():
    model = CNN(SPECS["series", "classify"], width=4, depth=2)
    assert [tuple(m.kernel_size) for m in model.modules() if isinstance(m, nn.Conv2d)] == [(1, 3), (1, 3)]
    with pytest.raises(ValueError, match=r"model\.depth=4: halves 1 x 12 to nothing; at most 3"):
        CNN(SPECS["series", "classify"], depth=4)


def test_patches_and_rows_are_cuts_of_the_image():
    x = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)
    p = read.patches(x, 2)  # (2, 6, 12)
    assert torch.equal(p[1, 4], x[1, :, 2:4, 2:4].flatten())
    assert torch.equal(read.rows(x)[1, 2], x[1, :, 2].flatten())
    with pytest.raises(ValueError, match=r"model\.patch=3: does not tile 8 x 8"):
        Transformer(SPECS["image", "classify"], patch=3)
    with pytest.raises(ValueError, match=r"model\.patch=2: cuts images"):
        Transformer(SPECS["tokens", "next_token"], patch=2)


def test_attention_weights_come_on_request_and_do_not_change_the_answer():
    spec = SPECS["image", "classify"]
    model = Transformer(spec, width=8, heads=2, depth=2).eval()
    x, _ = batch(spec)
    before = model(x)
    maps = model.attention(x)
    assert [tuple(m.shape) for m in maps] == [(4, 2, 8, 8)] * 2
    assert torch.equal(model(x), before)


def test_a_transformer_ignores_padding_and_the_future():
    torch.manual_seed(0)
    model = Transformer(SPECS["tokens", "classify"], width=8, heads=2).eval()
    torch.testing.assert_close(model(torch.tensor([[3, 1, 4]])), model(torch.tensor([[3, 1, 4, 0, 0]])))
    causal = Transformer(SPECS["tokens", "next_token"], width=8, heads=2).eval()
    x = torch.tensor([[0, 3, 1, 4]])
    other = torch.tensor([[0, 3, 5, 5]])
    torch.testing.assert_close(causal(x)[:, :2], causal(other)[:, :2])


def test_kind_and_task_that_do_not_fit_are_refused():
    with pytest.raises(Mismatch, match="CNN reads image, series, but data=data gives tokens"):
        CNN(SPECS["tokens", "next_token"])
    with pytest.raises(Mismatch, match="Neuron serves"):
        Neuron(SPECS["vector", "classify"].replace(task="next_token"))


def test_a_users_module_needs_five_lines():
    class Mine(Model):
        accepts, tasks, stages = ("vector",), ("classify",), (("body", r"net\."),)

        def __init__(self, spec, width: int = 4):
            super().__init__(spec)
            self.net = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, self.spec.out))

        def forward(self, x):
            return self.net(x)

    spec = SPECS["vector", "classify"]
    assert Mine(spec)(batch(spec)[0]).shape == (4, 3)
    assert dict(Mine(spec, width=7).hparams) == {"width": 7, "spec": spec.to_dict()}


def test_a_parameter_outside_all_stages_is_named():
    class Leaky(Neuron):
        stages = (("head", r"head\.weight"),)

    with pytest.raises(Mismatch, match=r"Leaky\.stages: parameter head\.bias is in no stage"):
        Leaky(SPECS["vector", "classify"]).stage_parameters()
