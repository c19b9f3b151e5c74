import pytest
import torch
from tests.conftest import SPECS, batch
from torch.nn import functional as F

from layerlab.data.spelling import Spelling
from layerlab.models.seq2seq import Seq2Seq
from layerlab.tasks import Transduce
from layerlab.tasks.transduce import words

SPEC = SPECS["tokens", "transduce"]


def made(**options):
    torch.manual_seed(0)
    model = Seq2Seq(SPEC, width=6, embed=4, **options).double().eval()
    model.task = Transduce(SPEC)
    return model


def by_the_paper(model, x, y):
    """Logits (U, V) of one word x (T,) with the answers y (U,) fed back, from the formulas of Bahdanau et al. 2015."""
    gru, cell = model.encoder, model.decoder

    def run(suffix, steps):
        h, states = torch.zeros(6, dtype=torch.float64), []
        W, U, b, c = (getattr(gru, f"{n}_l0{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        for e in steps:
            h = gru_cell(W @ e + b, U @ h + c, h)
            states.append(h)
        return states

    e = model.encoder_embed(x)
    forth, back = run("", e), run("_reverse", e.flip(0))[::-1]
    states = torch.stack([torch.cat(pair) for pair in zip(forth, back, strict=True)])  # (T, 2 width)
    s = (model.start.weight @ back[0] + model.start.bias).tanh()
    out, before = [], torch.tensor(0)
    for answer in y:
        keys = states @ model.key.weight.T
        if model.additive:
            hidden = (model.query.weight @ s + keys + model.key.bias).tanh()
            look = (hidden @ model.energy.weight[0]).softmax(0)
        else:
            look = (keys @ s).softmax(0)
        seen = look @ states
        into = torch.cat([model.decoder_embed(before), seen])
        s = gru_cell(cell.weight_ih @ into + cell.bias_ih, cell.weight_hh @ s + cell.bias_hh, s)
        out.append(model.head.weight @ torch.cat([s, seen]) + model.head.bias)
        before = answer
    return torch.stack(out)


def gru_cell(a, r, h):
    (a_r, a_z, a_n), (r_r, r_z, r_n) = a.chunk(3), r.chunk(3)
    z = (a_z + r_z).sigmoid()
    return (1 - z) * (a_n + (a_r + r_r).sigmoid() * r_n).tanh() + z * h


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_equals_the_formulas_of_the_papers(attention):
    model = made(attention=attention)
    x, y = batch(SPEC, 1)
    _, _, out = model.step((x, y))
    torch.testing.assert_close(out[0], by_the_paper(model, x[0], y[0]), rtol=1e-10, atol=1e-12)


def test_left_alone_it_feeds_back_what_it_wrote():
    model = made()
    x, _ = batch(SPEC)
    said = model.generate(x)
    _, _, forced = model.step((x, said))
    torch.testing.assert_close(model(x), forced)


def test_padding_changes_nothing_and_is_never_looked_at():
    model = made()
    x = torch.tensor([[3, 1, 4, 0, 0], [5, 2, 6, 1, 3]])
    torch.testing.assert_close(model(x)[0], model(x[:1, :3])[0])
    looks = model.alignment(x)
    assert looks.shape == (2, 6, 5)
    assert not looks[0, :, 3:].any()
    torch.testing.assert_close(looks.sum(2), torch.ones(2, 6, dtype=torch.float64))


def test_error_rates_count_edits_up_to_the_end():
    task = Transduce(SPEC)
    right = torch.tensor([[1, 2, 3, 0, -100], [4, 4, 0, -100, -100]])
    said = torch.tensor([[1, 3, 0, 2, 2], [4, 4, 0, 1, 1]])  # one symbol missing; right
    assert task.metrics(said, right) == {"exact": 0.5, "ser": pytest.approx(1 / 5)}
    assert words([4, 0, 4]) == [4]


def test_the_nll_is_the_mean_over_symbols():
    task = Transduce(SPEC)
    out, y = torch.randn(2, 3, 5), torch.tensor([[1, 0, -100], [2, 3, 0]])
    loss, sums = task.measure(out, y)
    by_hand = F.cross_entropy(out.flatten(0, 1)[[0, 1, 3, 4, 5]], torch.tensor([1, 0, 2, 3, 0]))
    torch.testing.assert_close(loss, by_hand)
    assert task.report(sums.tolist())["nll"] == pytest.approx(float(by_hand), rel=1e-6)


def test_spelling_reads_pairs_and_names_the_line_that_is_none(tmp_path):
    place = tmp_path / "pairs.tsv"
    place.write_text("".join(f"w{i}\tW {'AY' if i % 2 else 'OW'}\n" for i in range(300)).replace("0", "o"))
    data = Spelling(path=str(place), longest=6)
    x, y = data.splits["train"].read(torch.arange(3), None)
    assert data.spec.target_vocabulary == (".", "AY", "OW", "W")
    assert (y != -100).sum(1).tolist() == [3, 3, 3]
    assert x.shape[1] == int((x != 0).sum(1).max())
    assert data.encode_text("W1 wo")[1] == ["w1", "wo"]
    place.write_text("one W AH N\n")
    with pytest.raises(Exception, match=r"pairs\.tsv, line 1: .*expected a word without"):
        Spelling(path=str(place)).spec  # noqa: B018
