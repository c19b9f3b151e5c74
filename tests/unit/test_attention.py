import math

import pytest
import torch
from torch import nn

from layerlab.nn.attention import Attention, angles, attend, rotate, sinusoidal


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_the_written_out_path_equals_the_fused_kernel(causal, padded):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 6, 8, dtype=torch.float64)
    mask = torch.ones(2, 6, dtype=torch.bool)
    if padded:
        mask[1, 4:] = False
    fused, nothing = attend(q, k, v, causal=causal, mask=mask if padded else None)
    out, weights = attend(q, k, v, causal=causal, mask=mask if padded else None, weights=True)
    assert nothing is None
    torch.testing.assert_close(out, fused, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 6, dtype=torch.float64))
    if causal:
        assert torch.equal(weights.triu(1), torch.zeros_like(weights))
    if padded:
        assert float(weights[1, :, :, 4:].abs().max()) == 0


def test_equals_torchs_multihead_attention_with_the_same_weights():
    torch.manual_seed(0)
    ours = Attention(16, 4).double()
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    expected, weights = theirs(x, x, x, average_attn_weights=False)
    ours.keep_weights = True
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(ours.weights, weights)


def test_without_positions_it_does_not_see_the_order():
    torch.manual_seed(0)
    a = Attention(8, 2).double()
    x, order = torch.randn(1, 6, 8, dtype=torch.float64), torch.randperm(6)
    torch.testing.assert_close(a(x)[:, order], a(x[:, order]), rtol=1e-10, atol=1e-12)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"model\.heads=3: does not divide model\.width=16"):
        Attention(16, 3)


def test_unscaled_scores_are_larger_by_the_root_of_their_width():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 1, 6, 16, dtype=torch.float64)
    for weights in (False, True):
        bare, _ = attend(q, k, v, weights=weights, scaled=False)
        torch.testing.assert_close(bare, attend(4 * q, k, v)[0], rtol=1e-10, atol=1e-12)  # 4 = sqrt(16)


def test_sinusoidal_positions_are_the_table_of_the_paper():
    table = sinusoidal(50, 6)
    for t, i in ((0, 0), (7, 2), (49, 4)):
        angle = t / 10_000 ** (i / 6)
        assert float(table[t, i]) == pytest.approx(math.sin(angle), abs=1e-5)
        assert float(table[t, i + 1]) == pytest.approx(math.cos(angle), abs=1e-5)


def test_rotated_products_depend_on_the_distance_alone_and_keep_lengths():
    torch.manual_seed(0)
    q, k = torch.randn(2, 8, dtype=torch.float64).expand(20, 2, 8).unbind(1)
    turn = torch.stack([angles(20, 8).cos(), angles(20, 8).sin()]).double()
    scores = rotate(q, turn) @ rotate(k, turn).T  # (20, 20)
    for distance in (0, 3, 11):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rotate(q, turn).norm(dim=1), q.norm(dim=1))
