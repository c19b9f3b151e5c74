import subprocess
import sys

import pytest
from tests.conftest import SPECS

from layerlab.contract import UNKNOWN, DataError, DataSpec, Mismatch, decode, encode, key


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda s: f"{s.kind}-{s.task}")
def test_a_spec_survives_its_plain_form(spec):
    plain = spec.to_dict()
    assert DataSpec.coerce(plain) == spec
    assert all(isinstance(v, str | int | float | list | None) for v in plain.values())


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"kind": "picture"}, "spec.kind='picture'"),
        ({"task": "guess"}, "spec.task='guess'"),
        ({"shape": (8, 8)}, "spec.shape=(8, 8)"),
        ({"shape": (1, 0, 8)}, "spec.shape=(1, 0, 8)"),
        ({"out": 0}, "spec.out=0"),
        ({"mean": (0.0,), "std": (0.0,)}, "std > 0"),
        ({"mean": (0.0,), "std": ()}, "equal lengths"),
        ({"kind": "tokens", "shape": (4,)}, "vocabulary"),
        ({"task": "forecast"}, "horizon"),
        ({"task": "forecast", "horizon": 2, "channels": ("a",), "target": ("b",)}, "'b'"),
    ],
)
def test_contradicting_facts_are_refused_by_name(change, place):
    with pytest.raises(Mismatch) as e:
        DataSpec(**({"kind": "image", "task": "classify", "shape": (1, 8, 8), "out": 3} | change))
    assert place in str(e.value)


def test_key_is_the_same_in_every_process_and_differs_by_part():
    code = "from layerlab.contract import key; print(key(0, 'order', 3))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(other) == key(0, "order", 3)
    assert len({key(0, "order", 3), key(0, "order", 4), key(1, "order", 3), key(0, "step", 3)}) == 4
    assert 0 <= key("x") < 2**63


def test_encode_names_the_character_that_the_vocabulary_lacks():
    with pytest.raises(DataError, match="'z': not in the vocabulary") as e:
        encode("az", tuple("abc"))
    assert "abc" in str(e.value)
    assert encode("az", (UNKNOWN, "a"), unknown=True) == [1, 0]
    assert decode(encode("cab", tuple("abc")), tuple("abc")) == "cab"


def test_contract_signature_and_build_load_nothing_heavy():
    code = "import sys, layerlab.contract, layerlab.signature, layerlab.build; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "pandas", "lightning", "omegaconf"} & set(loaded)
