"""What only a GPU can show: make test-gpu on a machine with one. Skipped elsewhere."""

import json
import warnings

import pytest
import torch

from layerlab.contract import LayerlabError
from layerlab.train import checkpoint, guards
from layerlab.train.callbacks import Keyed
from layerlab.train.guards import Diverged

if not torch.cuda.is_available():
    pytest.skip("needs a GPU, and LAYERLAB_TEST_GPU=1", allow_module_level=True)

KINDS = {
    "image": ("model=cnn", "data=digits"),
    "tokens": ("model=lstm", "data=names", "trainer.limit_train_batches=60"),
    "text": ("model=transformer", "data=code", "trainer.limit_train_batches=20", "trainer.limit_val_batches=4"),
    "series": ("model=transformer", "data=series"),
    "vector": ("model=mlp", "data=table"),
    "augmented": ("model=resnet", "model.depth=8", "data=photos", "augment=[crop,flip,erase]", "callbacks=ema"),
}
GPU = ("trainer=gpu", "trainer.max_epochs=2", "trainer.limit_test_batches=4")


@pytest.mark.parametrize("precision", ["auto", "32", "16-mixed", "bf16-true"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_trains_on_a_gpu_in_every_precision(name, precision, train):
    run = train(*KINDS[name], *GPU, f"trainer.precision={precision}")
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert manifest["device"].startswith("cuda")
    assert manifest["precision"] == ("bf16-mixed" if precision == "auto" else precision.replace("32", "32-true"))
    assert run.metrics["val/loss"] == run.metrics["val/loss"]  # a number
    assert run.results["steps"] > 0


def test_accuracy_on_a_gpu_is_that_of_a_cpu(train):
    found = train("model=cnn", "trainer=gpu").metrics["test/acc"]
    assert found >= 0.97


@pytest.mark.parametrize("name", KINDS)
def test_no_step_waits_for_the_gpu(name, train, monkeypatch):
    """Between log points nothing asks the device for a value."""
    begin, steps = Keyed.on_train_batch_start, []

    def watched(self, trainer, module, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("warn" if 3 <= batch_idx < 9 else "default")
        steps.append(batch_idx)
        begin(self, trainer, module, batch, batch_idx)

    monkeypatch.setattr(Keyed, "on_train_batch_start", watched)
    monkeypatch.setattr(guards, "NORM_EVERY", 1000)
    options = [*(o for o in KINDS[name] if "limit_train" not in o), *GPU, "data.batch_size=8"]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            train(*options, "trainer.limit_train_batches=12", "trainer.log_every_n_steps=1000")
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len(steps) == 24
    waits = {(w.filename, w.lineno) for w in found if "called a synchronizing" in str(w.message)}
    assert not {w for w in waits if "swa_utils" not in w[0]}  # torch's own averaging asks


def test_a_bad_loss_is_never_learnt_from_and_stops_the_run_with_its_step(train, tmp_path, monkeypatch):
    from layerlab.models.mlp import MLP

    plain = MLP.step

    def poisoned(self, batch):
        loss, sums, out = plain(self, batch)
        bad = self.training and self.trainer.global_step == 13
        return loss * float("nan") if bad else loss, sums, out

    monkeypatch.setattr(MLP, "step", poisoned)
    with pytest.raises(Diverged, match=r"loss: nan at step 13 ") as e:
        train("model=mlp", "trainer=gpu", "trainer.max_epochs=2")
    assert e.value.exit_code == 4
    for file in tmp_path.rglob("step-*.ckpt"):
        assert all(torch.isfinite(v).all() for v in torch.load(file, weights_only=True)["state_dict"].values())


@pytest.mark.parametrize("step", [3, 8, 11])
def test_a_run_cut_on_a_gpu_ends_as_one_that_was_not(step, train, cut_after, tmp_path, monkeypatch):
    options = ("model=cnn", "model.dropout=0.3", "callbacks=ema", "trainer=gpu", "trainer.deterministic=true")
    options += ("trainer.limit_train_batches=4", "trainer.max_epochs=3", "select=last")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    whole = train(*options)
    straight = whole.folder.rename(tmp_path / "straight")

    with cut_after(step):
        train(*options)
    (folder,) = (f.parent for f in tmp_path.rglob("manifest.json") if f.parent != straight)
    again = train(f"resume={folder}")
    assert again.metrics == whole.metrics
    ends = [checkpoint.read(f / "checkpoints" / "step-000012.ckpt") for f in (folder, straight)]
    for part in ("state_dict", "optimizer_states", "current_model_state", "epoch_sums"):
        assert checkpoint.equal(ends[0][part], ends[1][part]), part


def test_a_cached_probe_answers_as_the_whole_model_does(train):
    run = train("model=pretrained", "data=photos", "trainer=gpu")  # it compares the logits itself
    assert run.metrics["test/acc"] > 0.6
    on_cpu = train("model=pretrained", "data=photos", "trainer=cpu")
    assert run.metrics["test/acc"] == pytest.approx(on_cpu.metrics["test/acc"], abs=0.03)


def test_ddp_runs_on_one_gpu(train):
    run = train("model=cnn", "trainer=ddp", "trainer.devices=1", "trainer.max_epochs=2")
    assert run.metrics["test/acc"] > 0.8


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`")  # on one device
def test_fsdp_trains_and_its_checkpoint_loads_without_it(train):
    run = train("model=mlp", "trainer=fsdp", "trainer.devices=1", "trainer.max_epochs=3")
    assert run.metrics["test/acc"] > 0.8
    import layerlab

    assert layerlab.load(run.folder).metrics == run.metrics


def test_more_gpus_than_there_are_is_refused(train):
    n = torch.cuda.device_count()
    with pytest.raises(LayerlabError, match=rf"trainer.devices={n + 1}: {n + 1} requested, {n} available"):
        train("model=mlp", "trainer=gpu", f"trainer.devices={n + 1}")


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_stages_open_one_after_the_other_in_mixed_precision(precision, train):
    options = (
        "model=cnn",
        "freeze=gradual",
        "trainer=gpu",
        "trainer.accumulate_grad_batches=2",
        "trainer.max_epochs=6",
    )
    run = train(*options, f"trainer.precision={precision}")
    assert run.metrics["test/acc"] > 0.8
