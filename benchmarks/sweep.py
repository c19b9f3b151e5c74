"""The digits sweep of 60 runs through layerlab and through a typical template, CPU seconds of all processes.

    python benchmarks/sweep.py [--seeds 4] [--epochs 10]      5 activations x 3 depths x seeds
    python benchmarks/sweep.py --fixed                        what a job costs beside its training

The template: per-item transforms in a Dataset, DataLoader without workers, MeanMetric and Accuracy in every step, a
Trainer per run with its defaults (progress bar, summary, checkpoints with save_last, CSV logger), in one process
one after the other, as Hydra's basic launcher does. Same net, data, batch size, optimizer, epochs.
"""

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ACTIVATIONS, DEPTHS = ("relu", "leaky_relu", "gelu", "tanh", "sigmoid"), (1, 2, 4)


def ours(seeds: int, epochs: int, record: str, folder: str) -> list[str]:
    """The sweep as a user types it, but one job at a time as in the template: two would share caches."""
    command = [sys.executable, str(ROOT / "train.py"), "-m", "experiment=activation_sweep", f"seed=range({seeds})"]
    return [*command, f"trainer.max_epochs={epochs}", f"record={record}", "sweep.jobs=1", f"hydra.sweep.dir={folder}"]


def template(seeds: int, epochs: int, folder: str) -> None:
    """The same runs through the template recipe; in this process."""
    import lightning.pytorch as pl
    import numpy as np
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger
    from PIL import Image
    from sklearn.datasets import load_digits
    from torch import nn
    from torch.utils.data import DataLoader, Dataset, random_split
    from torchmetrics import MaxMetric, MeanMetric
    from torchmetrics.classification import Accuracy
    from torchvision import transforms

    class Digits(Dataset):
        def __init__(self):
            raw = load_digits()
            self.images = [Image.fromarray((i * 16).clip(0, 255).astype(np.uint8)) for i in raw.images]
            self.labels = raw.target
            self.change = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.3,), (0.38,))])

        def __len__(self):
            return len(self.images)

        def __getitem__(self, i):
            return self.change(self.images[i]), int(self.labels[i])

    acts = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}

    class Net(pl.LightningModule):
        def __init__(self, activation, depth):
            super().__init__()
            self.save_hyperparameters(logger=False)
            layers, width = [nn.Flatten()], 64
            for _ in range(depth):
                layers += [nn.Linear(width, 128), acts[activation]()]
                width = 128
            self.net, self.loss = nn.Sequential(*layers, nn.Linear(width, 10)), nn.CrossEntropyLoss()
            for part in ("train", "val", "test"):
                setattr(self, f"{part}_acc", Accuracy(task="multiclass", num_classes=10))
                setattr(self, f"{part}_loss", MeanMetric())
            self.best = MaxMetric()

        def common(self, batch, part):
            x, y = batch
            out = self.net(x)
            loss = self.loss(out, y)
            acc, mean = getattr(self, f"{part}_acc"), getattr(self, f"{part}_loss")
            mean(loss)
            acc(out.argmax(1), y)
            self.log(f"{part}/loss", mean, on_step=False, on_epoch=True, prog_bar=True)
            self.log(f"{part}/acc", acc, on_step=False, on_epoch=True, prog_bar=True)
            return loss

        def training_step(self, batch, batch_idx):
            return self.common(batch, "train")

        def validation_step(self, batch, batch_idx):
            self.common(batch, "val")

        def test_step(self, batch, batch_idx):
            self.common(batch, "test")

        def on_validation_epoch_end(self):
            self.best(self.val_acc.compute())
            self.log("val/acc_best", self.best.compute(), sync_dist=True, prog_bar=True)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=3e-3)

    torch.set_num_threads(1)
    for n, (activation, depth, seed) in enumerate(itertools.product(ACTIVATIONS, DEPTHS, range(seeds))):
        pl.seed_everything(seed, verbose=False)
        parts = random_split(Digits(), [1257, 180, 360], torch.Generator().manual_seed(0))
        train, val, test = (DataLoader(p, 32, shuffle=not i) for i, p in enumerate(parts))
        saver = ModelCheckpoint(monitor="val/acc", mode="max", save_last=True)
        logger = CSVLogger(folder, name=str(n))
        trainer = pl.Trainer(
            max_epochs=epochs, callbacks=[saver], logger=logger, default_root_dir=folder, accelerator="cpu"
        )
        trainer.fit(Net(activation, depth), train, val)
        trainer.test(dataloaders=test, ckpt_path="best", weights_only=True)


def cost(command: list[str]) -> float:
    """CPU seconds of a command and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with Path(os.devnull).open("w") as nowhere:
        subprocess.run(command, check=True, stdout=nowhere, stderr=nowhere, env=os.environ | {"OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fixed(few: int = 4, many: int = 20, short: int = 1, long: int = 11) -> None:
    """Print what a job costs beside its training: more jobs minus fewer, and longer ones minus shorter."""
    records = {"light": ["record=light"], "full": ["record=full"], "wandb": ["record=full", "logger=wandb"]}
    for name, options in records.items():
        each = {}
        for epochs in (short, long):
            costs = []
            for jobs in (few, many):
                with tempfile.TemporaryDirectory() as folder:
                    run = [sys.executable, str(ROOT / "train.py"), "-m", "model=mlp", "progress=none", *options]
                    run += [f"trainer.max_epochs={epochs}", f"seed=range({jobs})", "sweep.jobs=1"]
                    costs.append(cost([*run, f"hydra.sweep.dir={folder}/s"]))
            each[epochs] = (costs[1] - costs[0]) / (many - few)
        an_epoch = (each[long] - each[short]) / (long - short)
        print(f"{name:6} fixed {each[short] - short * an_epoch:.2f} CPU s a job, {an_epoch:.3f} an epoch", flush=True)


def main() -> None:
    """Print CPU seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--template", metavar="FOLDER", help="run the template in this process")
    parser.add_argument("--fixed", action="store_true", help="what a job costs beside its training, by its record")
    options = parser.parse_args()
    if options.fixed:
        fixed()
        return
    if options.template:
        template(options.seeds, options.epochs, options.template)
        return
    runs = len(ACTIVATIONS) * len(DEPTHS) * options.seeds
    with tempfile.TemporaryDirectory() as folder:
        own = {r: cost(ours(options.seeds, options.epochs, r, f"{folder}/{r}")) for r in ("light", "full")}
        sizes = [f"--seeds={options.seeds}", f"--epochs={options.epochs}"]
        other = cost([sys.executable, __file__, *sizes, f"--template={folder}/template"])
    print(f"{runs} runs of {options.epochs} epochs, 1 thread each; CPU s of all processes, start-up included")
    print(f"template        {other:7.1f}")
    for record, seconds in own.items():
        print(f"record={record:8} {seconds:7.1f}   {seconds / other:.3f} of the template, {seconds / runs:.2f} a run")


if __name__ == "__main__":
    main()
