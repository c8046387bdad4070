"""What this process asks of the operating system."""

import ctypes
import signal
import sys

_LIBC = ctypes.CDLL(None)


def die_with_parent(number: int = signal.SIGINT) -> None:
    """Linux only: this process gets the signal when the thread that started it ends, however it ends."""
    if sys.platform == "linux":
        _LIBC.prctl(1, number)  # PR_SET_PDEATHSIG
