"""Imported by the server of a sweep that logs to wandb: its import and its first run cost ten times the next one."""

import gc
import tempfile
from contextlib import suppress

from layerlab.train.loggers import first_wandb_run

with tempfile.TemporaryDirectory() as folder, suppress(Exception):  # where it fails, each job says so by itself
    first_wandb_run(folder)

gc.collect()
gc.freeze()  # as preload does, whose objects are frozen already
