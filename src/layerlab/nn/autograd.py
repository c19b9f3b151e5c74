"""Backpropagation from nothing but NumPy: every operation keeps how to pass the blame on.

a = Array(np.ones((2, 3)), trained=True)
loss = (a @ w).tanh().sum()
loss.backward()
a.grad                              # dloss / da, of the shape of a

Arrays are float64. Source: Rumelhart, Hinton & Williams 1986; reverse mode: Linnainmaa 1970.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Pass = Callable[[np.ndarray], tuple[np.ndarray, ...]]


class Array:
    """A NumPy array in a computation, and after `backward()` its gradient: dloss/dself, of the same shape.

    trained: whether `grad` is wanted; it is None until a backward pass reaches it, and adds up over several passes.
    """

    __array_ufunc__ = None  # np.ndarray + Array asks Array, instead of making an array of objects

    def __init__(self, value: np.ndarray | float, trained: bool = False):
        self.value = np.asarray(value, dtype=np.float64)
        self.trained = trained
        self.grad: np.ndarray | None = None
        self._parents: tuple[Array, ...] = ()
        self._pass: Pass | None = None  # gradient of self -> gradients of the parents

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the value."""
        return self.value.shape

    def backward(self) -> None:
        """Add dself/da to the `grad` of every trained array a that self was computed from; self is one number.

        The chain rule from output to input: an array passes its gradient on when all that used it have paid in.
        Raises ValueError where self is more than one number.
        """
        if self.value.size != 1:
            raise ValueError(f"backward: starts at a loss of one number, this has shape {self.shape}")
        owed = {id(self): np.ones_like(self.value)}
        for array in reversed(_inputs_first(self)):
            grad = owed.pop(id(array))
            if array.trained:
                array.grad = grad if array.grad is None else array.grad + grad
            if array._pass is not None:
                for parent, share in zip(array._parents, array._pass(grad), strict=True):
                    owed[id(parent)] = owed.get(id(parent), 0.0) + share

    # --- operations

    def __add__(self, other: Array | np.ndarray | float) -> Array:
        b = _array(other)
        return _result(self.value + b.value, (self, b), lambda g: (_fit(g, self.shape), _fit(g, b.shape)))

    def __mul__(self, other: Array | np.ndarray | float) -> Array:
        b = _array(other)
        return _result(
            self.value * b.value,
            (self, b),
            lambda g: (_fit(g * b.value, self.shape), _fit(g * self.value, b.shape)),
        )

    def __pow__(self, exponent: float) -> Array:
        return _result(self.value**exponent, (self,), lambda g: (g * exponent * self.value ** (exponent - 1),))

    def __matmul__(self, other: Array | np.ndarray) -> Array:
        b = _array(other)  # (..., n, k) @ (..., k, m) -> (..., n, m)
        return _result(
            self.value @ b.value,
            (self, b),
            lambda g: (_fit(g @ b.value.swapaxes(-1, -2), self.shape), _fit(self.value.swapaxes(-1, -2) @ g, b.shape)),
        )

    def __neg__(self) -> Array:
        return self * -1.0

    def __sub__(self, other: Array | np.ndarray | float) -> Array:
        return self + -_array(other)

    def __truediv__(self, other: Array | np.ndarray | float) -> Array:
        return self * _array(other) ** -1.0

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: np.ndarray | float) -> Array:
        return -self + other

    def __rmatmul__(self, other: np.ndarray) -> Array:
        return _array(other) @ self

    def relu(self) -> Array:
        """max(0, x); gradient 0 at 0, as torch has it."""
        return _result(np.maximum(self.value, 0), (self,), lambda g: (g * (self.value > 0),))

    def tanh(self) -> Array:
        """(e^x - e^-x) / (e^x + e^-x)."""
        y = np.tanh(self.value)
        return _result(y, (self,), lambda g: (g * (1 - y**2),))

    def sigmoid(self) -> Array:
        """1 / (1 + e^-x), without overflow."""
        y = 0.5 * (1 + np.tanh(0.5 * self.value))
        return _result(y, (self,), lambda g: (g * y * (1 - y),))

    def exp(self) -> Array:
        """e^x."""
        y = np.exp(self.value)
        return _result(y, (self,), lambda g: (g * y,))

    def log(self) -> Array:
        """Natural logarithm."""
        return _result(np.log(self.value), (self,), lambda g: (g / self.value,))

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        """Sum over axes; all of them where none is given."""
        y = self.value.sum(axis, keepdims=keepdims)

        def back(g: np.ndarray) -> tuple[np.ndarray]:
            if axis is not None and not keepdims:
                g = np.expand_dims(g, axis)
            return (np.broadcast_to(g, self.shape),)

        return _result(y, (self,), back)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        """Mean over axes; over all of them where none is given."""
        total = self.sum(axis, keepdims)
        return total * (total.value.size / self.value.size)

    def reshape(self, *shape: int) -> Array:
        """The same numbers in another shape."""
        return _result(self.value.reshape(shape), (self,), lambda g: (g.reshape(self.shape),))

    def transpose(self, *axes: int) -> Array:
        """The axes in another order."""
        back = tuple(np.argsort(axes))
        return _result(self.value.transpose(axes), (self,), lambda g: (g.transpose(back),))


def unfold(x: Array, size: int, padding: int = 0) -> Array:
    """Every `size` x `size` window of an image, as rows: (B, C, H, W) -> (B, H' W', C size size).

    H' = H + 2 padding - size + 1. With it a convolution is a matrix product. Backward: each pixel collects from the
    windows it was in.
    """
    p = padding
    padded = np.pad(x.value, ((0, 0), (0, 0), (p, p), (p, p)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))  # (B, C, H', W', size, size)
    B, C, H, W = windows.shape[:4]

    def back(g: np.ndarray) -> tuple[np.ndarray]:
        g = g.reshape(B, H, W, C, size, size)
        total = np.zeros_like(padded)
        for i in range(size):
            for j in range(size):
                total[:, :, i : i + H, j : j + W] += g[..., i, j].transpose(0, 3, 1, 2)  # (B, H', W', C) -> (B, C, ...)
        return (total[:, :, p : p + x.shape[2], p : p + x.shape[3]],)

    return _result(windows.transpose(0, 2, 3, 1, 4, 5).reshape(B, H * W, C * size * size), (x,), back)


def conv2d(x: Array, weight: Array, bias: Array, padding: int = 0) -> Array:
    """Convolution: (B, C, H, W), filters (F, C, size, size) and biases (F,) -> (B, F, H', W')."""
    F, _, size, _ = weight.shape
    B, _, H, W = x.shape
    flat = unfold(x, size, padding) @ weight.reshape(F, -1).transpose(1, 0) + bias  # (B, H' W', F)
    return flat.transpose(0, 2, 1).reshape(B, F, H + 2 * padding - size + 1, W + 2 * padding - size + 1)


def softmax_cross_entropy(logits: Array, target: np.ndarray) -> Array:
    """Mean over examples of -log softmax(logits)[target], in nats: (B, C) and class ids (B,) -> one number.

    Its gradient is (softmax - one-hot) / B.
    """
    z = logits.value - logits.value.max(1, keepdims=True)  # the largest is 0: exp cannot overflow
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    B = len(target)

    def back(g: np.ndarray) -> tuple[np.ndarray]:
        d = np.exp(log_p)
        d[np.arange(B), target] -= 1
        return (g * d / B,)

    return _result(-log_p[np.arange(B), target].mean(), (logits,), back)


# --- inside


def _array(value: Array | np.ndarray | float) -> Array:
    return value if isinstance(value, Array) else Array(value)


def _result(value: np.ndarray, parents: tuple[Array, ...], back: Pass) -> Array:
    out = Array(value)
    out._parents, out._pass = parents, back
    return out


def _fit(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum a gradient over the axes along which NumPy stretched an operand of `shape`."""
    grad = grad.sum(tuple(range(grad.ndim - len(shape))))
    return grad.sum(tuple(i for i, n in enumerate(shape) if n == 1 and grad.shape[i] != 1), keepdims=True)


def _inputs_first(end: Array) -> list[Array]:
    """All arrays that `end` was computed from, itself last, each after those it was computed from."""
    order, seen, stack = [], set(), [(end, False)]
    while stack:
        array, ready = stack.pop()
        if ready:
            order.append(array)
        elif id(array) not in seen:
            seen.add(id(array))
            stack.append((array, True))
            stack += [(parent, False) for parent in array._parents]
    return order
