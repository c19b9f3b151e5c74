"""Claims that serve as gates: three seeds, a few CPU seconds, and the verdict that the long run gave."""

import pytest

from layerlab.claims.claim import names, read
from layerlab.claims.run import run

VERDICTS = {
    "act_linear_collapse": "supported",
    "attn_lookup": "supported",
    "attn_sqrt_dk": "nuanced",
    "bank_attends_river": "refuted",
    "bank_disambiguated": "supported",
    "bp_chain_rule": "supported",
    "cnn_equivariance": "nuanced",
    "gelu_cost": "supported",
    "leaky_cures": "nuanced",
    "leaky_overhead": "refuted",
    "loop_4_steps": "nuanced",
    "lstm_default_vanishes": "refuted",
    "neuron_threshold": "nuanced",
    "relu_dying": "supported",
    "rnn_vanish_50": "supported",
    "sigmoid_vanish": "nuanced",
    "softmax_not_hidden": "supported",
    "softmax_twice": "supported",
    "tanh_rnn": "nuanced",
    "tanh_saturates": "nuanced",
    "tl_frozen_still": "nuanced",
    "zg_accumulates": "supported",
    "zg_diverges": "nuanced",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(VERDICTS))
def test_the_verdict_holds(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    claim = read(name)
    for package in claim.needs:
        pytest.importorskip(package)
    record = run(claim, tmp_path / "logs", "gate")
    assert record["verdict"] == VERDICTS[name], record["why"]


def test_every_gate_is_tried():
    assert {name for name in names() if read(name).gate} == set(VERDICTS)
