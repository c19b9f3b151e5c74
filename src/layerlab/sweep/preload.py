"""Imported once by the server that the jobs of a sweep are forked from: what costs every process seconds, paid once.

No backward pass here: torch's engine refuses to work in a fork of a process that has made one. Nor is a GPU touched.
"""

import contextlib
import io
import os
import tempfile

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asks the driver's library, and leaves CUDA alone

from layerlab.compose import compose
from layerlab.train.manifest import machine
from layerlab.train.run import fit

machine()
with tempfile.TemporaryDirectory() as logs, contextlib.redirect_stdout(io.StringIO()):
    fit(compose("model=mlp", "debug=check", "trainer=cpu", "progress=none", f"logs={logs}"))  # the first Trainer
