"""The signals that end a run or a sweep, and their exit codes. Standard library only: a sweep loads no torch."""

import signal
import threading


def listened() -> list[signal.Signals]:
    """Those that end a run; none outside of the main thread, which alone may listen."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [getattr(signal, n) for n in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, n)]


def exit_code(number: int) -> int:
    """130 for SIGINT, else 143: SIGUSR1 preempts as SIGTERM does."""
    return 128 + (number if number == signal.SIGINT else signal.SIGTERM)
