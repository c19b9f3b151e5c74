"""Names that Lightning keeps to itself and that we rely on: an upgrade that moves them fails here, not in a run."""

import inspect

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from tests.conftest import SPECS

from layerlab.models.neuron import Neuron


def test_the_trainer_counts_batches_where_we_read_them():
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    assert trainer.fit_loop.epoch_loop.batch_progress.total.ready == 0
    assert hasattr(type(trainer), "num_training_batches")
    assert trainer.log_every_n_steps == 50
    assert trainer.overfit_batches == 0.0


def test_the_current_hook_is_a_plain_attribute():
    assert "self._current_fx_name" in inspect.getsource(LightningModule.__init__)
    model = Neuron(SPECS["vector", "classify"])
    model._current_fx_name = "training_step"
    assert model._current_fx_name == model.__dict__["_current_fx_name"] == "training_step"
    assert "_current_fx_name" not in model._buffers


def test_the_arguments_of_a_training_step_are_looked_up_where_we_left_them():
    step = Neuron(SPECS["vector", "classify"]).training_step
    assert inspect.getfullargspec(step).args == ["self", "batch", "batch_idx"]
    assert inspect.getfullargspec(step.__func__).args == list(step.__func__.__signature__.parameters)
    assert is_param_in_hook_signature(step, "batch_idx", min_args=2)


def test_the_default_generator_can_be_seeded_by_itself():
    torch.default_generator.manual_seed(5)
    a = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(a, torch.rand(3))


def test_torch_and_torchvision_are_of_one_build():
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0]


def test_the_server_of_the_jobs_can_be_stopped_and_waited_for():
    from multiprocessing import forkserver

    assert callable(forkserver._forkserver._stop)
