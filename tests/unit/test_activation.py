import math
from typing import get_args

import pytest
import torch

from layerlab.nn.activation import MODULES, Activation, activation

X = torch.linspace(-4, 4, 81, dtype=torch.float64)
FORMULAS = {
    "identity": lambda x: x,
    "relu": lambda x: max(0.0, x),
    "leaky_relu": lambda x: max(0.01 * x, x),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "centred_sigmoid": lambda x: 1 / (1 + math.exp(-x)) - 0.5,
    "tanh": lambda x: (math.exp(x) - math.exp(-x)) / (math.exp(x) + math.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / 2**0.5)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "step": lambda x: float(x > 0),
    "straight_through": lambda x: float(x > 0),
}


def test_the_annotation_lists_exactly_what_there_is():
    assert get_args(Activation) == tuple(MODULES)
    assert set(FORMULAS) | {"softmax"} == set(MODULES)


@pytest.mark.parametrize("name", FORMULAS)
def test_each_equals_its_formula(name):
    expected = torch.tensor([FORMULAS[name](float(v)) for v in X], dtype=torch.float64)
    torch.testing.assert_close(activation(name)(X), expected, rtol=1e-12, atol=1e-12)


def test_softmax_is_over_features_for_vectors_and_over_channels_for_images():
    assert torch.allclose(activation("softmax")(torch.randn(3, 5)).sum(-1), torch.ones(3))
    assert torch.allclose(activation("softmax")(torch.randn(2, 4, 3, 3)).sum(1), torch.ones(2, 3, 3))


def test_step_passes_no_gradient_and_straight_through_that_of_the_sigmoid():
    x = X.clone().requires_grad_()
    activation("step")(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
    y, z = X.clone().requires_grad_(), X.clone().requires_grad_()
    activation("straight_through")(y).sum().backward()
    z.sigmoid().sum().backward()
    torch.testing.assert_close(y.grad, z.grad)


def test_an_unknown_one_is_refused_with_the_known():
    with pytest.raises(ValueError, match="expected one of identity, relu"):
        activation("rleu")
