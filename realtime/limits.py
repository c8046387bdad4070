"""How much somebody may send."""

import time


class TokenBucket:
    """Lets `rate` a second through, and up to `burst` at once after a pause."""

    __slots__ = ("_burst", "_filled_at", "_left", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self._left = burst
        self._filled_at = time.monotonic()

    def take(self, cost: float = 1) -> bool:
        """Whether there was enough; if not, nothing is taken."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._left < cost:
            return False
        self._left -= cost
        return True
