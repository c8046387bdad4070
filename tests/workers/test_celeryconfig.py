"""What the settings promise (research/metering-billing-celery.md, 4), and that Celery knows every one of them."""

import inspect
import logging
import socket
import time
from typing import Any

import pytest
from celery import Celery
from celery.app.defaults import NAMESPACES, flatten
from kombu import Queue
from kombu.exceptions import OperationalError
from kombu.transport import redis as kombu_redis

import celeryconfig
from workers.app import app, without_traceback

IMPORTED = {"Exchange", "Queue", "settings_or_exit"}


def test_celery_knows_every_setting() -> None:
    known = set(dict(flatten(NAMESPACES)))
    assert "task_acks_late" in known  # the names compare
    names = {name for name in vars(celeryconfig) if not name.startswith("_")}
    assert names - IMPORTED <= known
    assert len(names - IMPORTED) > 20


def test_kombu_reads_every_transport_option() -> None:
    of_connections = {"max_retries"}  # kombu/connection.py, _extract_failover_opts
    known = {*kombu_redis.Channel.from_transport_options, *of_connections}
    assert set(app.conf.broker_transport_options) <= known
    source = inspect.getsource(__import__("kombu.connection", fromlist=["x"]))
    assert "'max_retries' in transport_opts" in source


def test_a_task_outlives_its_process_and_never_runs_twice_at_once() -> None:
    assert app.conf.task_acks_late
    assert app.conf.task_retry_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1
    assert 0 < app.conf.task_soft_time_limit < app.conf.task_time_limit
    assert app.conf.broker_transport_options["visibility_timeout"] > 2 * app.conf.task_time_limit


def test_nothing_waits_without_end_for_the_broker() -> None:
    options = app.conf.broker_transport_options
    assert 0 < options["socket_connect_timeout"] <= 2
    assert 0 < options["socket_timeout"] <= 10
    assert options["socket_keepalive"]
    assert options["max_retries"] == 0
    assert 0 < app.conf.broker_pool_acquire_timeout <= 5


def test_a_worker_keeps_trying_to_reach_the_broker() -> None:
    assert app.conf.broker_connection_retry
    assert app.conf.broker_connection_retry_on_startup
    assert not app.conf.broker_connection_max_retries  # None and 0 stand for ever


def test_results_are_not_kept() -> None:
    assert app.conf.task_ignore_result
    assert not app.conf.result_backend
    assert all(task.ignore_result for name, task in tasks().items())


def test_only_json_goes_over_the_wire_and_clocks_are_utc() -> None:
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert str(app.timezone) == "UTC"
    assert app.conf.enable_utc


def test_a_worker_that_is_told_to_stop_finishes_first() -> None:
    assert 0 < app.conf.worker_soft_shutdown_timeout < app.conf.task_soft_time_limit
    assert app.conf.worker_enable_soft_shutdown_on_idle


def tasks() -> dict[str, Any]:
    app.loader.import_default_modules()
    return {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}


def test_the_beat_ticks_tasks_that_exist_in_queues_that_are_taken() -> None:
    declared = {queue.name for queue in app.conf.task_queues if isinstance(queue, Queue)}
    assert all(queue.exchange.name == queue.routing_key == queue.name for queue in app.conf.task_queues)
    assert not app.conf.task_create_missing_queues
    ticked = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert ticked <= set(tasks())
    for name in tasks():
        queue = app.amqp.router.route({}, name)["queue"]
        assert queue.name in declared


def test_every_task_but_the_woken_one_is_ticked() -> None:
    ticked = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert set(tasks()) - ticked == {"outbox.drain"}


def test_a_tick_that_nobody_took_does_not_pile_up() -> None:
    for name, entry in app.conf.beat_schedule.items():
        if entry["schedule"] <= 60:
            assert 0 < entry["options"]["expires"] <= 2 * entry["schedule"], name


def fresh(url: str) -> Celery:
    publisher = Celery("test", config_source="celeryconfig", set_as_current=False)
    publisher.conf.update(broker_url=url)
    return publisher


@pytest.mark.parametrize("silent", [False, True], ids=["refusing", "silent"])
def test_a_message_for_a_broker_that_is_away_fails_fast(silent: bool) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        publisher = fresh(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        if silent:  # a whole second, for the test's sake; it must not be multiplied by hidden repeats
            options = publisher.conf.broker_transport_options
            publisher.conf.update(broker_transport_options=options | {"socket_timeout": 1})
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(OperationalError):
                publisher.send_task("outbox.drain", queue="outbox", expires=5, retry=False)
            assert time.monotonic() - started < 2.5
        publisher.close()


def test_beat_logs_one_line_for_a_tick_without_a_broker() -> None:
    record = logging.LogRecord("celery.beat", logging.ERROR, "f", 1, "Message Error: %s", ("stack",), None)
    assert without_traceback(record)
    assert record.getMessage() == "Message Error: stack"
    error = ConnectionError("refused")
    record.exc_info = (type(error), error, None)
    assert without_traceback(record)
    assert logging.Formatter().format(record) == "ConnectionError('refused')"
