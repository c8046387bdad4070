"""How much somebody may send, and how often an address may be refused."""

import time
from dataclasses import dataclass, field

from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter


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


@dataclass(frozen=True, slots=True)
class Refusals:
    """How often each address was refused of late, in this process; in memory, for it must hold while Redis is away."""

    limits: list[RateLimitItem]
    _counts: FixedWindowRateLimiter = field(default_factory=lambda: FixedWindowRateLimiter(MemoryStorage()))

    def add(self, address: str) -> None:
        for limit in self.limits:
            self._counts.hit(limit, address)

    def wait_s(self, address: str) -> float:
        """The seconds until this address may try again; 0 where it may now."""
        windows = [
            self._counts.get_window_stats(limit, address)
            for limit in self.limits
            if not self._counts.test(limit, address)
        ]
        return max((window.reset_time - time.time() for window in windows), default=0.0)
