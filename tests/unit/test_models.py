import pytest
import torch
from tests.conftest import SPECS, batch
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from layerlab.contract import Mismatch
from layerlab.models.attention import Attention
from layerlab.models.base import Model, trainable
from layerlab.models.bow import BOW
from layerlab.models.cnn import CNN
from layerlab.models.mlp import MLP
from layerlab.models.neuron import Neuron
from layerlab.models.resnet import ResNet
from layerlab.models.transformer import Transformer
from layerlab.models.wavenet import WaveNet
from layerlab.nn import conv, read
from layerlab.nn.init import init_linear


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
    with pytest.raises(ValueError, match=r"model\.context=3: has an effect on next_token alone"):
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


def digit_on_a_canvas(background):
    """The same strokes on a canvas (1, 1, 20, 20), and three rows further down."""
    x = torch.full((1, 1, 20, 20), background)
    x[..., 4:10, 6:12] += torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return x, x.roll(3, 2)


@pytest.mark.parametrize(
    ("padding", "background", "moves_along"),
    [("circular", -0.81, True), ("background", -0.81, True), ("zeros", 0.0, None), ("zeros", -0.81, False)],
)
def test_feature_maps_move_with_the_image_where_the_border_is_what_it_would_be(padding, background, moves_along):
    torch.manual_seed(0)
    spec = SPECS["image", "classify"].replace(shape=(1, 20, 20), mean=(0.81,), std=(1.0,))
    model = CNN(spec, width=4, depth=2, pool="none", padding=padding).eval()
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_()
                m.bias.normal_()
    x, moved = digit_on_a_canvas(background)
    maps, after = ({k: v.roll(r, 2) for k, v in model.feature_maps(i).items()} for i, r in ((x, 3), (moved, 0)))
    errors = {k: float((maps[k] - after[k]).abs().max()) for k in maps}
    assert list(errors) == ["body.0.conv", "body.1.conv"]
    if moves_along is None:  # zeros are right for the first layer, whose background is 0, and for no other
        assert errors["body.0.conv"] < 1e-6 < 0.05 < errors["body.1.conv"]
    else:
        assert (max(errors.values()) < 1e-5) == moves_along


def test_the_background_of_a_batch_is_normalised_with_its_own_statistics():
    torch.manual_seed(0)
    block = conv.Block(1, 3, (9, 9), "relu", "none", "background")
    x = torch.full((2, 1, 9, 9), -0.5)
    x[:, :, 4, 4] = 1.0
    y, beyond = block.surrounded(x, torch.tensor([-0.5]))
    torch.testing.assert_close(y[0, :, 0, 0], beyond)


def test_pools_halve_and_heads_read_one_number_per_map_or_all():
    spec = SPECS["image", "classify"]
    for pool, side in (("max", 2), ("avg", 2), ("stride", 2), ("none", 8)):
        assert CNN(spec, width=4, pool=pool).head.in_features == 8 * side**2
    x, _ = batch(spec)
    for head in ("gap", "gmp"):
        model = CNN(spec, width=4, head=head).eval()
        maps = model.body[1](model.body[0](model.read(x)))
        torch.testing.assert_close(model.features(x), maps.mean((2, 3)) if head == "gap" else maps.amax((2, 3)))


@pytest.mark.parametrize(("depth", "count"), [(20, 269_722), (56, 853_018)])
def test_a_resnet_has_the_parameters_of_the_paper(depth, count):
    spec = SPECS["image", "classify"].replace(shape=(3, 32, 32), out=10, classes=(), mean=(0.0,) * 3, std=(1.0,) * 3)
    assert trainable(ResNet(spec, depth=depth).parameters()) == count  # .27 M and .85 M: He et al. 2016, table 6


def test_a_residual_block_equals_torchvisions_with_the_same_weights():
    torch.manual_seed(0)
    ours, theirs = conv.Residual(4, 4, (8, 8), 1), BasicBlock(4, 4)
    names = {"norm1": "bn1", "norm2": "bn2"}
    state = {".".join(names.get(p, p) for p in k.split(".")): v for k, v in ours.state_dict().items()}
    theirs.load_state_dict(state)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x))


def test_a_shortcut_that_shrinks_has_no_parameters_and_fills_new_channels_with_zeros():
    block = conv.Residual(2, 4, (7, 7), 2)
    nn.init.zeros_(block.norm2.weight)  # nothing but the shortcut is left
    x = torch.rand(1, 2, 7, 7)
    assert torch.equal(block(x)[:, :2], x[..., ::2, ::2])
    assert not block(x)[:, 2:].any()
    assert block.size == (4, 4)


def test_filters_and_feature_maps_come_by_name():
    spec = SPECS["image", "classify"]
    x, _ = batch(spec)
    model = ResNet(spec, depth=8, width=4).eval()
    maps, filters = model.feature_maps(x), model.filters()
    assert list(maps) == list(filters)
    assert filters["stem.conv"].shape == (4, 1, 3, 3)
    assert torch.equal(maps["stem.conv"], model.stem.conv(x))


def test_the_lookup_table_equals_embedding_and_linear():
    torch.manual_seed(0)
    model = MLP(SPECS["tokens", "next_token"], width=6, depth=1, context=3, embed=4).double()
    x, _ = batch(model.spec)
    ids = F.pad(x, (2, 0), value=7).unfold(1, 3, 1)
    linear = model.body[0][0]
    by_hand = model.embed(ids).flatten(2) @ linear.weight.T + linear.bias
    torch.testing.assert_close(model.features(x), by_hand.relu(), rtol=1e-10, atol=1e-12)


def test_residual_layers_add_to_what_they_read():
    spec = SPECS["vector", "classify"]
    model = MLP(spec, width=4, depth=3, residual="pre", norm="layer").eval()
    x, _ = batch(spec)
    h = model.body[0](x)
    for norm, act, _, linear in model.body[1:]:
        h = h + linear(act(norm(h)))
    torch.testing.assert_close(model.features(x), F.layer_norm(h, (4,)).relu())


@pytest.mark.parametrize("name", ["xavier", "kaiming", "orthogonal"])
def test_inits_have_the_spread_of_their_formula(name):
    torch.manual_seed(0)
    linear = nn.Linear(300, 200)
    init_linear(linear, name, "tanh")
    W, gain = linear.weight, 5 / 3
    if name == "orthogonal":
        torch.testing.assert_close(W @ W.T, gain**2 * torch.eye(200), atol=1e-4, rtol=0)
    else:
        variance = gain**2 * 2 / 500 if name == "xavier" else 2 / 300
        assert float(W.detach().var()) == pytest.approx(variance, rel=0.02)
    assert not linear.bias.any()


def test_batch_norm_of_an_mlp_is_over_all_but_the_features():
    model = MLP(SPECS["tokens", "next_token"], width=6, depth=1, norm="batch", activation="identity")
    h = model.features(batch(model.spec)[0]).flatten(0, 1)
    torch.testing.assert_close(h.mean(0), torch.zeros(6), atol=1e-5, rtol=0)


def test_a_bag_of_words_forgets_the_order():
    torch.manual_seed(0)
    bag = BOW(SPECS["tokens", "classify"], width=8).eval()
    torch.testing.assert_close(bag(torch.tensor([[3, 1, 4, 0]])), bag(torch.tensor([[4, 3, 1, 0, 0]])))
    running = BOW(SPECS["tokens", "next_token"], width=8).eval()
    x = torch.tensor([[0, 3, 1, 4]])
    mean = torch.stack([running.embed(x)[:, : t + 1].mean(1) for t in range(4)], 1)
    torch.testing.assert_close(running.features(x), running.body(mean))


def test_a_wavenet_sees_exactly_two_to_its_depth():
    torch.manual_seed(0)
    model = WaveNet(SPECS["tokens", "next_token"], width=8, depth=2, embed=4).eval()
    x = torch.tensor([[0, 3, 1, 4, 2, 6, 5, 1, 2]])
    other = x.clone()
    other[0, 2] = 5
    same = (model(x) == model(other)).all(-1)[0].tolist()
    assert same == [True, True, False, False, False, False, True, True, True]


def test_one_head_is_a_lookup_and_nothing_else():
    torch.manual_seed(0)
    model = Attention(SPECS["tokens", "classify"], width=8).eval()
    x = torch.tensor([[3, 1, 4, 0, 0]])
    (weights,) = model.attention(x)
    assert weights.shape == (1, 1, 5, 5)
    assert not weights[..., 3:].any()  # padding is never looked at
    h = model.position(model.embed(x))
    values = model.body.qkv(h)[..., 16:]
    by_hand = model.head(model.body.out(weights[0, 0, 2] @ values[0]))
    torch.testing.assert_close(model(x)[0], by_hand)


def test_a_decoder_is_causal_and_an_encoder_may_be():
    with pytest.raises(ValueError, match=r"model\.causal=False .*leave both at auto"):
        Transformer(SPECS["tokens", "next_token"], causal=False)
    with pytest.raises(ValueError, match=r"model\.pool=flatten: sequences of tokens"):
        Transformer(SPECS["tokens", "classify"], pool="flatten")
    model = Transformer(SPECS["tokens", "classify"], causal=True, pool="last", width=8, heads=2).eval()
    (first, _) = model.attention(torch.tensor([[3, 1, 4]]))
    assert not first.triu(1).any()


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
