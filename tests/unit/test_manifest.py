from concurrent.futures import ThreadPoolExecutor

import pytest

from layerlab.compose import Composed
from layerlab.contract import LayerlabError
from layerlab.train.manifest import REDACTED, config_hash, make_folder, redact, redact_command


def composed(tmp_path, **choices):
    return Composed({"logs": str(tmp_path), "seed": 0, "record": "full"}, {"model": "cnn", "data": "digits"} | choices)


@pytest.mark.row(47)
def test_secrets_are_hidden_and_their_namesakes_are_not():
    config = {
        "api_key": "a",
        "hub_token": "b",
        "password": "c",
        "nested": [{"secret": "d", "keys": 3}],
        "tokenizer": "bpe",
        "max_tokens": 5,
        "keyboard": "x",
        "monkey": "y",
        "token": None,
    }
    found = redact(config)
    assert [found["api_key"], found["hub_token"], found["password"], found["nested"][0]["secret"]] == [REDACTED] * 4
    assert (found["tokenizer"], found["max_tokens"], found["keyboard"], found["monkey"]) == ("bpe", 5, "x", "y")
    assert found["nested"][0]["keys"] == 3
    assert found["token"] is None
    assert redact_command(["logger.api_key=abc", "seed=1"]) == [f"logger.api_key={REDACTED}", "seed=1"]


@pytest.mark.row(52)
def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: make_folder(composed(tmp_path), None), range(8)))
    assert len(set(folders)) == 8
    assert {f.parent.name for f in folders} == {"cnn-digits"}
    assert make_folder(composed(tmp_path, experiment="mine"), None).parent.name == "mine"


def test_a_given_folder_is_used_as_it_is(tmp_path):
    assert make_folder(composed(tmp_path), str(tmp_path / "ä b")) == tmp_path / "ä b"


@pytest.mark.row(16)
def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LayerlabError, match=r"not writable .*hydra\.run\.dir="):
        make_folder(composed(tmp_path), str(tmp_path / "file" / "run"))
    with pytest.raises(LayerlabError, match="not writable"):
        make_folder(composed(tmp_path / "file"), None)


def test_the_hash_stands_for_the_values_whatever_their_order():
    assert config_hash({"a": 1, "b": {"c": 2}}) == config_hash({"b": {"c": 2}, "a": 1}) != config_hash({"a": 1})
