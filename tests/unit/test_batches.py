import pytest
import torch

from layerlab.contract import IGNORE, key
from layerlab.data.batches import Batches, SeriesWindows, Tensors, TextWindows, Words


def tensors(n):
    return Tensors(torch.arange(n), torch.arange(n) * 10)


def seen(batches):
    return torch.cat([x for x, _ in batches])


def test_every_example_once_per_epoch_in_an_order_of_seed_and_epoch():
    epochs = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        found = seen(Batches(tensors(37), 8, shuffle=True, seed=seed, place=lambda e=epoch: (e, 0)))
        assert sorted(found.tolist()) == list(range(37))
        if (seed, epoch) in epochs:
            assert torch.equal(epochs[seed, epoch], found)
        epochs[seed, epoch] = found
    assert len({tuple(v.tolist()) for v in epochs.values()}) == 3


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_a_resumed_epoch_goes_on_where_it_was_cut(start):
    whole = list(Batches(tensors(37), 8, shuffle=True, place=lambda: (2, 0)))
    rest = list(Batches(tensors(37), 8, shuffle=True, place=lambda: (2, start)))
    assert len(rest) == 5 - start
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[start:], rest, strict=True))


@pytest.mark.row(55)
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_are_disjoint_and_make_equal_steps(world):
    ranks = [Batches(tensors(38), 4, shuffle=True, rank=r, world=world) for r in range(world)]
    found = [set(seen(r).tolist()) for r in ranks]
    assert len({len(r) for r in ranks}) == 1
    assert sum(map(len, found)) == len(set().union(*found)) == 38 // world * world


def test_words_are_cut_to_the_longest_of_the_batch():
    y = torch.tensor([[1, 2, IGNORE, IGNORE], [1, IGNORE, IGNORE, IGNORE], [1, 2, 3, IGNORE]])
    split = Words(y.clamp(min=0), y)
    assert split.read(torch.tensor([0, 1]), None)[0].shape == (2, 2)
    assert split.read(torch.tensor([2]), None)[1].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("n", [9, 10, 17, 64, 65])
def test_in_evaluation_every_character_but_the_first_is_scored_once(n):
    split = TextWindows(torch.arange(n), 8)
    x, y = split.read(torch.arange(len(split)), None)
    assert y[y != IGNORE].tolist() == list(range(1, n))
    inside = y != IGNORE
    assert torch.equal(x[inside] + 1, y[inside])


def test_in_training_the_windows_move_with_the_epoch_and_never_leave_the_text():
    split = TextWindows(torch.arange(100), 8, seed=3, train=True)
    starts = set()
    for epoch in range(20):
        x, y = split.read(torch.arange(len(split)), epoch)
        assert not (y == IGNORE).any()
        assert torch.equal(x + 1, y)
        starts.add(int(x[0, 0]))
    assert len(starts) > 3
    assert starts <= set(range(8))


def test_series_windows_equal_slices():
    values = torch.randn(30, 3)
    split = SeriesWindows(values, torch.tensor([0, 4, 19]), lookback=7, horizon=4, targets=[2, 0])
    x, y = split.read(torch.tensor([1, 2]), 0)
    for row, start in enumerate((4, 19)):
        assert torch.equal(x[row], values[start : start + 7])
        assert torch.equal(y[row], values[start + 7 : start + 11][:, [2, 0]])


def test_the_order_is_the_documented_one():
    generator = torch.Generator().manual_seed(key(5, "order", 2))
    expected = torch.randperm(10, generator=generator)
    assert torch.equal(Batches(tensors(10), 3, shuffle=True, seed=5).order(2), expected)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint16])
def test_text_windows_can_be_read_for_another_device(dtype):
    here = TextWindows(torch.arange(100).to(dtype), 8)
    there = here.to(torch.device("meta"))  # in place of a GPU: it holds no data, and mixes with nothing
    x, y = there.read(torch.arange(3), None)
    assert x.device.type == y.device.type == "meta"
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(here.read(torch.arange(3), None)[0][1], torch.arange(8, 16))
