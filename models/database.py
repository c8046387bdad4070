"""The engine of this process and `transaction()`, the only place that commits."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
