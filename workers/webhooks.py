"""Sending the log to webhooks (models/operations/deliveries.py): several at once, each in the log's order."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from datetime import timedelta

import structlog
from redis import Redis, RedisError
from redis.exceptions import LockError
from redis.lock import Lock

from models.database import transaction
from models.destinations import parse
from models.metrics import DELIVERIES, DELIVERY_SECONDS
from models.operations import deliveries, webhook_messages, webhooks
from models.operations.deliveries import LEASED_FOR, Batch, Lease, Message, Outcome
from models.posting import TOTAL_S, Answer, Poster
from models.settings import settings
from realtime.publisher import connect
from workers.app import app

log = structlog.get_logger("workers.webhooks")

LOCK_KEY = "webhooks:delivering:"
THREADS = 16
SLOW_AT_ONCE = THREADS // 2
"""Webhooks that were slow or failed the last time: the rest of the threads are for the others."""
TURN_S = 5.0
"""After so long a webhook makes way for others, when the POST that it is at is done."""
NOTED_EVERY_S = 0.5
"""What a kill of the process repeats at the most, and how old the answer to who may see what can be."""
LONGEST_RUN_S = 20.0
LOCKED_FOR_S = 5.0
"""Anew with every look around: what a run that was killed held is free again so soon."""
POLL_S = 0.25
BACK_OFF = timedelta(minutes=1)
"""After a fault of our own."""


@app.task(name="webhooks.deliver")
def deliver() -> None:
    """
    Sends all that is due. So many runs at a time as WEBHOOK_WORKERS says: receivers that do not answer must not hold up
    every worker process. Were the lock lost, two runs would still not serve the same webhook.
    """
    with _place(connect(settings().redis_url)) as lock:
        if lock is not None:
            deliver_due(lambda: _hold(lock))


@app.task(name="webhooks.expire")
def expire() -> None:
    """Forgets old deliveries, and the secrets before a rotation whose day is over."""
    with transaction() as session:
        webhooks.expire_secrets(session)
    gone = 1
    while gone:
        with transaction() as session:
            gone = deliveries.expire(session)


@contextmanager
def _place(redis: Redis) -> Iterator[Lock | None]:
    """One of the places of the runs; None when all are taken."""
    for number in range(settings().webhook_workers):
        lock = redis.lock(f"{LOCK_KEY}{number}", timeout=LOCKED_FOR_S)
        if lock.acquire(blocking=False):
            try:
                yield lock
            finally:
                with suppress(LockError, RedisError):  # it took too long, and the lock is someone else's
                    lock.release()
            return
    yield None


def _hold(lock: Lock) -> None:
    with suppress(LockError, RedisError):  # it only saves processes
        lock.reacquire()


def deliver_due(look_around: Callable[[], None] = lambda: None) -> int:
    """
    Serves webhooks, several at once, until none has anything to send or the run has lasted; how many turns it gave. Calls
    `look_around` every moment.
    """
    until, turns = time.monotonic() + LONGEST_RUN_S, 0
    running: dict[Future[None], Lease] = {}
    with ThreadPoolExecutor(THREADS, thread_name_prefix="webhook") as threads:
        while True:
            claimed = []
            if len(running) < THREADS and time.monotonic() < until:
                slow = sum(lease.slow for lease in running.values())
                with transaction() as session:
                    claimed = deliveries.claim(
                        session, limit=THREADS - len(running), slow=max(0, SLOW_AT_ONCE - slow)
                    )
            running |= {threads.submit(serve, lease): lease for lease in claimed}
            turns += len(claimed)
            if not running:
                return turns
            look_around()
            done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for each in done:
                del running[each]


def serve(lease: Lease) -> None:
    """One turn of one webhook. Whatever goes wrong here is logged, and the webhook tried again in a while."""
    after = timedelta(0)
    try:
        Turn(lease).run()
    except Exception:  # one webhook's fault must not end the run of the others
        log.exception("webhook not served", webhook_id=str(lease.webhook_id))
        after = BACK_OFF
    try:
        with transaction() as session:
            deliveries.release(session, lease, after=after)
    except Exception:  # the lease runs out by itself
        log.exception("webhook not released", webhook_id=str(lease.webhook_id))


class Turn:
    """Sends, with no transaction open, and notes every moment what it sent."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._until = time.monotonic() + TURN_S
        self._unnoted: list[Outcome] = []
        self._leased_until = self._noted_at = 0.0

    def run(self) -> None:
        batch = self._load()
        if batch is None:
            return
        # A change of the URL breaks the lease, so it is the same for the whole turn.
        with Poster(parse(batch.url), settings().webhook_private_networks) as poster:
            while batch is not None and not batch.is_empty and self._send(poster, batch):
                batch = self._load() if time.monotonic() < self._until else None

    def _load(self) -> Batch | None:
        self._renewing()
        with transaction() as session:
            return deliveries.load(session, self._lease)

    def _send(self, poster: Poster, batch: Batch) -> bool:
        """
        Whether to go on: nothing failed, and the lease is ours. After a moment it leaves the rest of the batch to be read
        again: who may see it could have changed.
        """
        for message in (*batch.redeliveries, *batch.events):
            # When this process stood still, another may have taken over.
            if time.monotonic() > self._leased_until - TOTAL_S and not self._note():
                return False
            answer = self._post(poster, batch, message)
            self._unnoted.append(Outcome(message, answer))
            late = time.monotonic() - self._noted_at > NOTED_EVERY_S
            failed = not answer.delivered and not message.requested
            if late or failed:
                return self._note()
        return self._note(through=batch.through if batch.events else None)

    def _post(self, poster: Poster, batch: Batch, message: Message) -> Answer:
        headers = webhook_messages.headers(batch.secrets, message.id, message.body)
        answer = poster.post(message.body, headers)
        DELIVERIES.labels(answer.error or "delivered").inc()
        DELIVERY_SECONDS.observe(answer.duration_ms / 1000)
        return answer

    def _note(self, through: int | None = None) -> bool:
        outcomes, self._unnoted = self._unnoted, []
        self._renewing()
        with transaction() as session:
            return deliveries.settle(session, self._lease, outcomes, through=through)

    def _renewing(self) -> None:
        self._noted_at = time.monotonic()
        self._leased_until = self._noted_at + LEASED_FOR.total_seconds()
