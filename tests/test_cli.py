"""The commands as a user types them, each in a process of its own."""

import csv
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import timm
import torch
import yaml
from scipy.stats import sem, t

from tests.conftest import ROOT

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA", "WANDB", "LAYERLAB"))}


def cli(*arguments, cwd, verb=None, **environment):
    """Run `python train.py ...`, or `layerlab VERB ...`; the completed process."""
    start = ["-m", "layerlab.cli", verb] if verb else [str(ROOT / "train.py")]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env=ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
    )


REFUSED = [
    (["modle=lstm"], "modle: unknown key; did you mean model?"),
    (["model=lsmt"], "model=lsmt: no such model; did you mean lstm?"),
    (["model.widht=3"], "model.widht: not an option of CNN; did you mean model.width?"),
    (["model=lstm", "model.activation=relu"], "model.activation: not an option of LSTM; model=cnn, mlp"),
    (["+foo=1"], "foo: unknown key; known: augment, callbacks"),
    (["+optimizer.lrr=1"], "optimizer.lrr: not an option of adamw; did you mean optimizer.lr?"),
    (["model.activation=rleu"], "did you mean relu?"),
    (["optimizer.lr=fast"], "optimizer.lr='fast': expected float > 0 or auto"),
    (["optimizer.lr=-1"], "optimizer.lr=-1: expected float > 0 or auto"),
    (["trainer.precision=17"], "trainer.precision=17: expected one of auto, 32"),
    (["seed=1 2"], "seed='1 2': expected int >= 0"),
    (["foo"], "foo: expected key=value"),
    (["data=names"], "model=cnn reads image, series, but data=names gives tokens. Models that read tokens"),
    (["model._target_=torch.load"], "model._target_: torch.load is not allowed"),
    (["data.path=a${b}"], "data.path: a${b}"),
    (["model=../../etc/passwd"], "model=../../etc/passwd: no such model"),
    (["optimizer.lr=inf"], "optimizer.lr=inf: expected float > 0 or auto"),
    (["objective=nan"], "objective=nan: expected str or null, got float nan; quote it"),
    (["~optimizer"], "~optimizer: nothing is removed"),
    (["+hydra.callbacks.x._target_=torch.save"], "+hydra.callbacks.x._target_=torch.save: not among what can be set"),
    (["-cp", "/tmp"], "-cp: other configs than ours"),
    (["model._target_=torch.nn.functional.torch.load"], "torch.nn.functional.torch.load is not allowed"),
    (["+model._partial_=true"], "model._partial_: not an option of CNN"),
    (["trainer.devices=two"], "trainer.devices='two': expected int or list >= 1 or auto"),
    (["data.num_workers=2"], "data.num_workers: not an option of Digits"),
    (["optimizer.lr=nan"], "optimizer.lr=nan: expected float > 0 or auto"),
]


@pytest.mark.row(3, 27, 28, 29, 30, 31, 44, 45)
@pytest.mark.parametrize(("arguments", "text"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_a_mistake_is_one_line_and_exit_2_without_torch(arguments, text, tmp_path):
    done = cli(*arguments, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert text in "\n".join(lines)
    assert len(lines) == 1, lines
    assert not any(m in done.stderr for m in ("| torch\n", "| lightning\n", "| pandas\n"))
    assert "append" not in "\n".join(lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]], ids=" ".join)
def test_help_and_config_do_not_load_torch_and_show_everything(arguments, tmp_path):
    done = cli(*arguments, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "| torch\n" not in done.stderr
    assert "forget_bias" not in done.stdout
    for word in ["split_seed", "max_epochs", "label_smoothing", "weight_decay"]:
        assert word in done.stdout
    if arguments == ["--help"]:
        for group in sorted(
            d.name for d in (ROOT / "configs").iterdir() if d.is_dir() and any(d.iterdir()) and d.name != "hydra"
        ):
            assert f"\n{group}: " in done.stdout, group


def test_unknown_verbs_and_missing_options(tmp_path):
    assert "did you mean train?" in cli(cwd=tmp_path, verb="trian").stderr
    assert "run: missing; give run=" in cli(cwd=tmp_path, verb="eval").stderr
    assert "rnu: unknown key; did you mean run?" in cli("rnu=x", cwd=tmp_path, verb="predict").stderr
    nothing = cli(f"run={tmp_path}", cwd=tmp_path, verb="eval")
    assert nothing.returncode == 2
    assert "no run in this folder" in nothing.stderr
    assert "temperature" in cli("--help", cwd=tmp_path, verb="predict").stdout


PATHS = [
    "my photos (1)",
    "a,b.csv",
    "epoch=3.ckpt",
    "[b]",
    "it's",
    "Größe",
    "~/photos",
    "#",
    "{x}",
    "&",
    ";",
    "a b",
    'a"b',
]


@pytest.mark.row(56)
@pytest.mark.parametrize("path", PATHS)
def test_a_path_works_as_typed(path):
    from layerlab.compose import compose

    found = compose("data=text", "model=lstm", f"data.path={path}").config["data"]["path"]
    assert found == str(Path(path).expanduser().absolute())


def test_a_run_its_evaluation_and_its_answers(tmp_path):
    folder = tmp_path / "my run (1), ü=~x"
    done = cli("model=mlp", "trainer.max_epochs=2", f"hydra.run.dir={folder}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2" in done.stdout
    assert done.stdout.rstrip().endswith("my run (1), ü=~x")
    assert done.stderr == ""
    results = json.loads((folder / "results.json").read_text())
    assert results["metrics"]["test/acc"] > 0.8
    assert results["cpu_seconds"]["total"] > results["cpu_seconds"]["fit"] > 0
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]

    done = cli(f"run={folder}", cwd=tmp_path, verb="eval")
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "eval.json").read_text())["metrics"]
    assert found == {k: v for k, v in results["metrics"].items() if k.startswith("test/")}
    assert (
        "data.split_sed: not an option of Digits; did you mean data.split_seed?"
        in cli(f"run={folder}", "data.split_sed=1", cwd=tmp_path, verb="eval").stderr
    )

    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    (tmp_path / "new").mkdir()
    for i in range(6):
        pixels = Image.fromarray((digits.images[i] / 16 * 255).astype("uint8")).resize(
            (32, 32), Image.Resampling.NEAREST
        )
        pixels.save(tmp_path / "new" / f"{digits.target[i]}.png")
    done = cli(f"run={folder}", f"input={tmp_path / 'new'}", "output=preds.csv", cwd=tmp_path, verb="predict")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "preds.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert sum(Path(r["input"]).stem == r["class"] for r in rows) >= 4
    assert all(abs(sum(float(v) for k, v in r.items() if k.startswith("p_")) - 1) < 1e-4 for r in rows)
    (tmp_path / "new" / "broken.png").write_bytes(b"\x89PNG broken")
    done = cli(f"run={folder}", f"input={tmp_path / 'new'}", cwd=tmp_path, verb="predict")
    assert done.returncode == 0
    assert "1 of 7 files left out" in done.stderr
    assert "broken.png: not a readable image" in done.stderr
    done = cli(f"run={folder}", f"input={tmp_path / 'new' / 'broken.png'}", cwd=tmp_path, verb="predict")
    assert done.returncode == 2


def test_a_model_of_ones_own_is_one_file_and_one_yaml(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mynet.py").write_text(
        textwrap.dedent("""
        from torch import nn
        from layerlab.models.base import Model

        class Mine(Model):
            accepts, tasks, stages = ("image",), ("classify",), (("body", r"net\\."),)

            def __init__(self, spec, width: int = 16):
                super().__init__(spec)
                self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, spec.out))

            def forward(self, x):
                return self.net(x)
        """)
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("_target_: mynet.Mine\nwidth: 16\n")
    mine = ["--config-dir", "conf", "model=mine", "user.paths=[code]"]
    refused = cli(*mine, cwd=tmp_path)
    assert refused.returncode == 2
    assert "mynet.Mine is not allowed" in refused.stderr
    mine += ["user.targets=[mynet]"]
    wrong = cli(*mine, "model.width=wide", cwd=tmp_path)
    assert "model.width='wide': expected int, got str" in wrong.stderr
    done = cli(*mine, "trainer.max_epochs=1", "hydra.run.dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["model"]["width"] == 16
    refused = cli("run=out", cwd=tmp_path, verb="eval")  # a folder does not say what code may run
    assert refused.returncode == 2
    done = cli("run=out", *refused.stderr.split("add ")[1].split(), cwd=tmp_path, verb="eval")
    assert done.returncode == 0, done.stderr


def test_two_processes_share_the_data_and_leave_one_folder(tmp_path):
    done = cli("model=mlp", "trainer=ddp_cpu", "trainer.max_epochs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folders = list((tmp_path / "logs").glob("*/*"))
    assert len(folders) == 1
    results = json.loads((folders[0] / "results.json").read_text())
    assert results["steps"] == 2 * 20  # 1,257 examples over two ranks of 32
    assert json.loads((folders[0] / "manifest.json").read_text())["devices"] == 2
    refused = cli("-m", "seed=0,1", "trainer=ddp_cpu", cwd=tmp_path)
    assert refused.returncode != 0
    assert "every rank would run the whole sweep again" in refused.stderr


def test_ranks_agree_after_stages_were_unfrozen(tmp_path):
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.pth")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "keep.py").write_text(
        textwrap.dedent("""
        import torch
        from lightning.pytorch import Callback

        class Keep(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                torch.save(pl_module.state_dict(), f"epoch{trainer.current_epoch}-rank{trainer.global_rank}.pt")
        """)
    )
    (tmp_path / "conf" / "callbacks").mkdir(parents=True)
    (tmp_path / "conf" / "callbacks" / "keep.yaml").write_text("keep: {_target_: keep.Keep}\n")
    own = ["--config-dir", "conf", "callbacks=keep", "user.paths=[code]", "user.targets=[keep]", "trainer=ddp_cpu"]
    net = ["model=pretrained", "model.backbone=test_efficientnet", "model.weights=w.pth", "freeze=gradual"]
    done = cli(*own, *net, "trainer.max_epochs=3", "trainer.limit_train_batches=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    states = {e: [torch.load(tmp_path / f"epoch{e}-rank{r}.pt") for r in (0, 1)] for e in range(3)}
    for mine, theirs in states.values():
        assert all(torch.equal(v, theirs[n]) for n, v in mine.items() if "running" not in n)
    first, last = states[0][0], states[2][0]
    moved = {n for n, v in first.items() if not torch.equal(v, last[n]) and "running" not in n}
    assert "net.conv_head.weight" in moved
    assert "net.conv_stem.weight" not in moved


def test_two_processes_train_one_head_and_keep_one_whole_model(tmp_path):
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.pth")
    net = ["model=pretrained", "model.backbone=test_efficientnet", "model.weights=w.pth", "trainer=ddp_cpu"]
    done = cli(*net, "trainer.max_epochs=2", "data.batch_size=256", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "logs").glob("*/*")
    found = cli(f"run={folder}", cwd=tmp_path, verb="eval")
    assert found.returncode == 0, found.stderr


def test_a_sweep_over_seeds_ends_with_one_table(tmp_path):
    options = ("model=mlp", "trainer.max_epochs=1", "model.width=8,32", "seed=range(3)", "progress=none")
    done = cli("-m", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (place,) = (tmp_path / "logs").rglob("sweep.csv")
    with place.open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert [r["setting"] for r in rows] == ["model.width=32", "model.width=8"]
    for row in rows:
        values = [float(v) for v in row["values"].split()]
        assert len(values) == int(row["n"]) == 3
        assert float(row["mean"]) == pytest.approx(sum(values) / 3, abs=1e-5)
        low, high = t.interval(0.95, 2, float(row["mean"]), sem(values))
        assert float(row["half_width_95"]) == pytest.approx((high - low) / 2, rel=1e-3)
    assert "model.width=32" in done.stdout.split("CPU s a run")[1]


def test_check_stops_before_training(tmp_path):
    done = cli("debug=check", "model=lstm", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "one batch went through" in done.stdout
    assert not list(tmp_path.rglob("*.ckpt"))


def test_the_wheel_works_in_any_folder(tmp_path):
    wheel = tmp_path / "wheel"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheel)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    place = tmp_path / "site"
    import zipfile

    with zipfile.ZipFile(next(wheel.glob("*.whl"))) as z:
        z.extractall(place)
    assert (place / "layerlab" / "configs" / "model" / "lstm.yaml").is_file()
    assert (place / "layerlab" / "py.typed").is_file()
    work = tmp_path / "work"
    work.mkdir()
    code = "import layerlab, sys; from layerlab.cli import main; print(layerlab.__file__); sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--cfg", "job", "model=lstm"],
        cwd=work,
        capture_output=True,
        text=True,
        env=ENVIRONMENT | {"PYTHONPATH": str(place)},
    )
    assert done.returncode == 0, done.stderr
    assert str(place) in done.stdout
    assert "forget_bias" in done.stdout
