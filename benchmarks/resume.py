"""Everything together on two ranks, cut everywhere: does a resumed run end as the one that was never cut?

    python benchmarks/resume.py [--ranks 2] [key=value ...]

One run writes a checkpoint after every batch, after every batch of validation and after every validation. Each is then
resumed with another global seed; weights, averaged weights, optimizer and logged figures are compared bit for bit.
Dropout, batch norm, augmentation, an accumulation that does not divide the epoch, EMA, cosine, gradual unfreezing.
A signal ends a run only where all cuts are exact: the kinds are counted at the end.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path

import torch
from lightning.pytorch import Callback
from torch import multiprocessing

from layerlab.train import checkpoint

OPTIONS = (
    "model=cnn",
    "model.dropout=0.3",
    "data=digits",
    "augment=[crop,flip]",
    "freeze=gradual",
    "callbacks=ema",
    "trainer.limit_train_batches=7",
    "trainer.accumulate_grad_batches=3",
    "trainer.limit_val_batches=2",
    "trainer.max_epochs=3",
    "trainer.gradient_clip_val=1.0",
    "select=last",
    "progress=none",
    "logger=[csv]",
)


class Cuts(Callback):
    """Save wherever a run could be cut; rank 0 keeps the checkpoints, every rank takes part."""

    def __init__(self, folder: Path, saver):
        self.folder, self.saver, self.count = folder, saver, 0

    def cut(self, trainer, kind: str) -> None:
        place = self.folder / f"{self.count:03}_{kind}_epoch{trainer.current_epoch}-step{trainer.global_step}"
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(place / "cut.ckpt")
        if trainer.is_global_zero and self.saver.folder.is_dir():
            shutil.copytree(self.saver.folder, place, dirs_exist_ok=True)
        self.count += 1

    def on_train_batch_end(self, trainer, module, outputs, batch, i):
        loop = trainer.fit_loop.epoch_loop
        due = loop.batch_progress.is_last_batch or loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
        self.cut(trainer, "accumulating" if loop._should_accumulate() else "before validation" if due else "step")

    def on_validation_batch_end(self, trainer, module, outputs, batch, i, dataloader_idx=0):
        if trainer.state.fn == "fit":
            self.cut(trainer, "in validation")

    def on_validation_end(self, trainer, module):
        if trainer.state.fn == "fit":
            self.cut(trainer, "after validation")


def rank(index: int, ranks: int, port: int, folder: str, overrides: tuple[str, ...], results: str) -> None:
    """One rank: the straight run, then each of its cuts."""
    os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(ranks), "NODE_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if ranks == 1:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK"):
            del os.environ[name]
    from layerlab.compose import compose
    from layerlab.train import run

    options = [*OPTIONS, *overrides] + (["trainer=ddp_cpu", f"trainer.devices={ranks}"] if ranks > 1 else [])
    cuts = Path(folder) / "cuts"

    def once(name: str, resume: Path | None) -> tuple[dict, list[dict]]:
        def train(model, data, trainer, start=None):
            saver = next(c for c in trainer.callbacks if type(c).__name__ == "Checkpoints")
            if resume is None:
                trainer.callbacks.append(Cuts(cuts, saver))
            elif index == 0:
                shutil.copytree(resume, saver.folder, ignore=lambda *_: ["cut.ckpt", "cut.ckpt.json"])
            trainer.fit(model, datamodule=data, ckpt_path=resume / "cut.ckpt" if resume else None)
            kept["state"] = {n: v.clone() for n, v in model.state_dict().items()}
            kept["optimizer"] = trainer.optimizers[0].state_dict()

        kept: dict = {}
        run._train = train
        torch.manual_seed(1234 if resume else 0)
        place = Path(folder) / name
        with contextlib.redirect_stdout(io.StringIO()):
            run.fit(compose(*options), str(place))
        rows = []
        if index == 0:
            with (place / "metrics.csv").open(newline="") as f:
                rows = [
                    {k: v for k, v in r.items() if v and k.startswith(("train/", "val/"))} for r in csv.DictReader(f)
                ]
        return kept, [r for r in rows if r]

    straight, logged = once("straight", None)
    found = []
    for i, cut in enumerate(sorted(cuts.iterdir())):
        entry = {"cut": cut.name}
        try:
            again, rows = once(f"again{i}", cut)
            off = [n for n, v in straight["state"].items() if not torch.equal(v, again["state"][n])]
            entry["weights"] = not [n for n in off if n != "epoch_sums"]
            entry["optimizer"] = (
                checkpoint.equal(straight["optimizer"], again["optimizer"]) and straight["lr"] == again["lr"]
            )
            entry["figures"] = not rows or rows == logged[-len(rows) :] if index == 0 else True
            done = sum("_after validation_" in c.name for c in sorted(cuts.iterdir())[: i + 1])
            left = sum("val/loss" in r for r in logged) - done  # validations still to come at the cut
            entry["validations"] = index > 0 or sum("val/loss" in r for r in rows) == left
        except Exception as e:
            entry["error"] = f"{type(e).__name__}: {str(e).splitlines()[0]}"
        found.append(entry)
        if index == 0:
            print(json.dumps(entry), flush=True)
    if index == 0:
        Path(results).write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--results", default="resume.json")
    options = parser.parse_args()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        arguments = (options.ranks, port, folder, tuple(options.overrides), options.results)
        multiprocessing.spawn(rank, arguments, nprocs=options.ranks)
    found = json.loads(Path(options.results).read_text())
    exact = [e for e in found if all(e.get(k) for k in ("weights", "optimizer", "figures", "validations"))]
    kinds = [e["cut"].split("_")[1] for e in found]
    for kind in dict.fromkeys(kinds):
        print(f"{kind:18} {sum(e['cut'].split('_')[1] == kind for e in exact)} of {kinds.count(kind)} exact")


if __name__ == "__main__":
    main()
