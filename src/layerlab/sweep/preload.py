"""Imported once by the server that the jobs of a sweep are forked from: what costs every process seconds, paid once.

No backward pass here: torch's engine refuses to work in a fork of a process that has made one. Nor is a GPU touched.
"""

import atexit
import contextlib
import gc
import io
import os
import signal
import tempfile

from layerlab.train.signals import listened

# before there are threads: what ends a sweep may reach all its processes, but the server has to outlive the jobs
signal.pthread_sigmask(signal.SIG_BLOCK, listened())
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asks the driver's library, and leaves CUDA alone

from layerlab.compose import compose  # noqa: E402
from layerlab.train.manifest import machine  # noqa: E402
from layerlab.train.run import fit  # noqa: E402

machine()
with tempfile.TemporaryDirectory() as logs, contextlib.redirect_stdout(io.StringIO()):
    fit(compose("model=mlp", "debug=check", "trainer=cpu", "progress=none", f"logs={logs}"))  # the first Trainer

# nothing of this is garbage: a collection in a job would look at all of it, and copy the pages it lies on
gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)  # the extension modules count what they have left at the end
