"""What is refused, warned of or survived, by name: rows 5, 32, 37, 39, 41, 43, 45, 47."""

import contextlib
import io
import json
import subprocess

import pytest
import torch
import yaml

import layerlab
from layerlab.contract import DataError, LayerlabError, Mismatch
from layerlab.data.points import XOR
from layerlab.train import checkpoint, resume
from tests.test_cli import cli

SHORT = ("model=mlp", "trainer.max_epochs=1", "trainer.limit_train_batches=4")


@pytest.mark.row(5)
def test_weights_that_are_averaged_at_the_end_are_not_resumed():
    swa = {"swa": {"_target_": "lightning.pytorch.callbacks.StochasticWeightAveraging", "swa_lrs": 0.1}}
    with pytest.raises(LayerlabError, match=r"callbacks.swa: not exact across resume; use callbacks=ema, or start"):
        resume.exact({"callbacks": swa})
    resume.exact({"callbacks": {"ema": {"_target_": "lightning.pytorch.callbacks.EMAWeightAveraging"}}})


@pytest.mark.row(32)
def test_labels_beyond_the_outputs_are_refused_wherever_they_are(train, monkeypatch, capsys):
    load = XOR.load

    def relabelled(self):
        spec, splits = load(self)
        splits["train"].y[-1] = 5  # the last one: a look at the first batch would not find it
        return spec, splits

    with monkeypatch.context() as m:
        m.setattr(XOR, "load", relabelled)
        with pytest.raises(Mismatch, match=r"data=xor, train: labels 0..5 need 6 outputs, the model has 2; mend"):
            train("model=mlp", "data=xor", "trainer.max_epochs=1")

    def wide(self):
        spec, splits = load(self)
        return spec.replace(out=4, classes=("a", "b", "c", "d")), splits

    monkeypatch.setattr(XOR, "load", wide)
    train("model=mlp", "data=xor", "trainer.max_epochs=1")
    assert "data=xor: the model has 4 outputs, train has no example of c, d" in capsys.readouterr().err


@pytest.mark.row(37)
def test_an_unknown_symbol_is_named_or_read_as_unknown_where_that_was_trained(train, tmp_path):
    names = train("model=bigram", "data=names", "trainer.max_epochs=1", "trainer.limit_train_batches=2")
    with pytest.raises(DataError, match=r"'7': not in the vocabulary \(.*27 printable symbols\); leave it out"):
        names.predict("ma7")
    (tmp_path / "t.txt").write_text("the cat sat on the mat. " * 200)
    text = train("model=bigram", "data=text", f"data.path={tmp_path / 't.txt'}", "trainer.max_epochs=1")
    assert text.predict("the Ö", samples=1, length=9)[0]["text"]
    letters = train("model=bow", "data=copy_task", *SHORT[1:])
    with pytest.raises(LayerlabError, match=r"input: ids 99..99, the vocabulary has 17"):
        letters.predict(torch.full((1, 52), 99))


@pytest.mark.row(38)
def test_rows_on_both_sides_of_a_split_are_told_of(train, tmp_path, capsys):
    file = tmp_path / "rows.csv"
    rows = [f"{i * 0.37 % 5:.3f},{i * 0.11 % 3:.3f},{'ab'[i % 2]}" for i in range(100)]
    options = ("model=mlp", "data=table", f"data.path={file}", "data.target=label", "trainer.max_epochs=1")
    file.write_text("u,v,label\n" + "\n".join(dict.fromkeys(rows)))
    train(*options)
    assert "equal a training example" not in capsys.readouterr().err
    file.write_text("u,v,label\n" + "\n".join(rows * 3))
    train(*options)
    assert "test examples equal a training example (0, 1, 2 ...): the result may flatter" in capsys.readouterr().err


@pytest.mark.row(39)
def test_data_that_has_changed_is_told_of_in_a_new_run_and_refused_in_a_resumed_one(train, tmp_path, capsys):
    file = tmp_path / "rows.csv"
    rows = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(90)]
    file.write_text("u,v,label\n" + "\n".join(rows))
    options = ("model=mlp", "data=table", f"data.path={file}", "data.target=label", "trainer.max_epochs=1")
    first = train(*options)
    file.touch()
    train(*options)
    assert "has changed" not in capsys.readouterr().err
    file.write_text("u,v,label\n" + "\n".join(["6,4,a", *rows[1:]]))
    train(*options)
    assert f"data: has changed since {tmp_path}" in capsys.readouterr().err
    status = first.folder / "status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"status": "preempted"}))
    with pytest.raises(LayerlabError, match="resume: the data has changed"):
        train(f"resume={first.folder}")


@pytest.mark.row(41)
def test_a_logger_that_breaks_in_mid_run_costs_one_line(train, monkeypatch, capsys):
    from lightning.pytorch.loggers import TensorBoardLogger

    def broken(self, *args, **kwargs):
        raise ConnectionError("network is unreachable")

    monkeypatch.setattr(TensorBoardLogger, "log_metrics", broken)
    run = train(*SHORT, "logger=tensorboard")
    assert run.metrics["test/acc"] > 0
    said = capsys.readouterr().err
    assert said.count("logger=tensorboard: ConnectionError: network is unreachable; going on without it") == 1
    assert "test/acc" in (run.folder / "metrics.csv").read_text()


@pytest.mark.row(43)
@pytest.mark.parametrize("key", ["_instantiator", "_target_", "_class_path"])
def test_names_of_code_in_hyper_parameters_call_nothing(key, train, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("os.system", called.append)
    run = train(*SHORT)
    path = run.folder / run.results["checkpoints"]["best"]
    state = checkpoint.read(path)
    state["hyper_parameters"][key] = "os.system"
    checkpoint.write(state, path)
    with contextlib.suppress(Exception):
        layerlab.load(run.folder)
    with contextlib.suppress(Exception):
        type(run.model).load_from_checkpoint(path, weights_only=True)
    assert called == []


@pytest.mark.row(44)
def test_a_run_folder_cannot_bring_its_own_code(train, tmp_path):
    run = train(*SHORT)
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    config["user"] = {"paths": [str(run.folder)], "targets": ["evil"]}
    (run.folder / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("torch.py", "evil.py"):
        (run.folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for verb in ("eval", "predict", "export", "rerun"):
        done = cli(f"run={run.folder}", cwd=tmp_path, verb=verb)
        assert done.returncode == 2
        assert "was made with code that is not layerlab's; if you know it, add user.paths=[" in done.stderr
    done = cli(f"resume={run.folder}", cwd=tmp_path)
    assert done.returncode == 2
    config["user"] = {"paths": [], "targets": []}
    config["model"]["_target_"] = "os.system"
    (run.folder / "config.yaml").write_text(yaml.safe_dump(config))
    done = cli(f"run={run.folder}", cwd=tmp_path, verb="eval")
    assert (done.returncode, "model._target_: os.system is not allowed" in done.stderr) == (2, True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.row(45)
def test_no_name_leads_out_of_its_folder(train, tmp_path):
    run = train(*SHORT)
    with pytest.raises(LayerlabError, match=r"checkpoint=../../x: give best, last, or the name of a file"):
        layerlab.load(run.folder, "../../x")
    for group in ("model", "experiment", "data"):
        done = cli(f"{group}=../../x", cwd=tmp_path)
        assert done.returncode == 2
        assert f"{group}=../../x: no such {group}" in done.stderr


@pytest.mark.row(47)
def test_a_secret_is_found_nowhere_in_the_folder_of_a_run(tmp_path):
    canary = "c4n4ry" * 4
    (tmp_path / "conf" / "callbacks").mkdir(parents=True)
    fault = {
        "_target_": "spy.Spy",
        "api_key": canary,
        "nested": {"token_file": canary},
        "url": f"https://u:{canary}@h/x",
    }
    (tmp_path / "conf" / "callbacks" / "spy.yaml").write_text(yaml.safe_dump({"spy": fault}))
    spy = "from lightning.pytorch import Callback\nclass Spy(Callback):\n    def __init__(self, **options): pass\n"
    (tmp_path / "spy.py").write_text(spy)
    for command in (["init", "-q"], ["remote", "add", "origin", f"https://u:{canary}@example.org/x.git"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    done = cli(
        *("--config-dir", "conf", "model=mlp", "callbacks=spy", "user.paths=[.]", "user.targets=[spy]"),
        *(
            f"callbacks.spy.nested.token_file={canary}",
            "logger=[wandb,tensorboard]",
        ),
        *("trainer.max_epochs=1", "hydra.run.dir=run"),
        cwd=tmp_path,
        WANDB_API_KEY=canary,
        SECRET=canary,
    )
    assert done.returncode == 0, done.stderr
    files = [f for f in (tmp_path / "run").rglob("*") if f.is_file()]
    assert any(f.suffix == ".wandb" for f in files)
    assert [str(f) for f in files if canary.encode() in f.read_bytes()] == []
    assert canary not in done.stdout + done.stderr


def test_a_run_is_repeated_and_compared(train, tmp_path):
    from layerlab.train.rerun import rerun

    run = train("model=mlp", "model.dropout=0.2", "trainer.max_epochs=2")
    with contextlib.redirect_stdout(io.StringIO()):
        same = rerun(run.folder)
        assert (same.verdict, same.where) == ("bit-equal", None)
        log = run.folder / "metrics.csv"
        lines = log.read_text().splitlines()
        log.write_text("\n".join([lines[0], lines[1].replace("0.", "0.9", 1), *lines[2:]]) + "\n")
        near = rerun(run.folder)
        assert near.verdict == "within interval"
        assert near.where.startswith("differs first at step 39: ")
        results = json.loads((run.folder / "results.json").read_text())
        results["intervals"]["test/acc"] |= {"low": 0.0, "high": 0.1}
        (run.folder / "results.json").write_text(json.dumps(results))
        assert rerun(run.folder).verdict == "different"


def test_a_check_foretells_what_the_run_will_be(train):
    run = train("model=mlp", "trainer.max_epochs=4", "debug=check")
    found = json.loads((run.folder / "forecast.json").read_text())
    assert found["steps"] == 4 * 40
    assert found["validations"] == 4
    assert found["seconds"] > 0
    assert found["memory"] > 10**8
    assert not list(run.folder.rglob("*.ckpt"))
