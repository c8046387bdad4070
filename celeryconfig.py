"""
Celery's settings, each with its reason. A message is only a wake-up: what is to be done stands in PostgreSQL, so a lost,
repeated or late message costs time and nothing else.
"""

from kombu import Exchange, Queue

from models.settings import settings_or_exit

broker_url = settings_or_exit().broker_url
_on_rabbitmq = broker_url.startswith("amqp")

# Queues by kind of work, so that an operator can give each its own workers. A worker takes all of them by default.
task_default_queue = "maintenance"
# Each with an exchange of its own: left out, all would be bound to the default queue's.
# On RabbitMQ they are quorum queues: replicated, so that they outlive a node.
_queue_arguments = {"x-queue-type": "quorum"} if _on_rabbitmq else {}
task_queues = tuple(
    Queue(name, Exchange(name), routing_key=name, queue_arguments=_queue_arguments)
    for name in ("outbox", "usage", "mail", "exports", "webhooks", "billing", "maintenance")
)
task_routes = {
    "outbox.*": {"queue": "outbox"},
    "usage.*": {"queue": "usage"},
    "mail.*": {"queue": "mail"},
    "exports.*": {"queue": "exports"},
    "webhooks.*": {"queue": "webhooks"},
    "activity.fold": {"queue": "usage"},
    "billing.*": {"queue": "billing"},
}
task_create_missing_queues = False  # a misspelt queue is an error, not a place where messages wait for ever

# A task that dies with its process is delivered again; every task is safe to run twice.
task_acks_late = True
task_retry_on_worker_lost = True
# A message waits for a free process in the broker, where every worker can take it.
worker_prefetch_multiplier = 1

# A hung task ends itself. The broker hands out a message again after the visibility timeout, so it must be longer than
# twice the hard limit, or a slow task would run twice at once.
task_soft_time_limit = 120
task_time_limit = 150
# A publisher does not wait for a broker that is away: the sweep finds what it had to say.
_no_retries = {"max_retries": 0}
_of_redis = {
    "visibility_timeout": 600,
    # Without these a half-open connection blocks a publisher or a worker for ever. No retry_on_timeout: it multiplies
    # the wait by four, and may send twice.
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
}
# A message counts as sent once a majority of RabbitMQ's nodes has it.
_of_rabbitmq = {"confirm_publish": True}
broker_transport_options = _no_retries | (_of_rabbitmq if _on_rabbitmq else _of_redis)
broker_connection_timeout = 2
broker_heartbeat = 10  # of RabbitMQ's connections, in seconds; Redis's are kept alive by TCP
result_backend = None  # nothing waits for a result; outcomes are rows
task_ignore_result = True

# The broker may be away when a worker starts or while it runs: keep trying, quietly, for as long as it takes.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_pool_limit = 4
broker_pool_acquire_timeout = 2

# On SIGTERM a worker finishes what it is at; what outlasts this goes back to the broker.
worker_soft_shutdown_timeout = 5.0
worker_enable_soft_shutdown_on_idle = True

worker_concurrency = (
    4  # the drain keeps one process busy, a slow mail server another, and the fold must not wait for either
)
worker_max_tasks_per_child = 5_000  # whatever leaks, leaks within bounds
worker_hijack_root_logger = False  # models/logs.py has configured it
worker_send_task_events = False
worker_cancel_long_running_tasks_on_connection_loss = False  # their effects commit once, whoever runs them

task_serializer = "json"
accept_content = ["json"]
timezone = "UTC"
enable_utc = True

# A tick that nobody took in time is dropped: the next one does its work. Any number of beats may run at once.
beat_schedule = {
    "sweep the outbox": {"task": "outbox.sweep", "schedule": 1.0, "options": {"expires": 2.0}},
    "fold usage": {"task": "usage.fold", "schedule": 1.0, "options": {"expires": 2.0}},
    "count the log": {"task": "activity.fold", "schedule": 5.0, "options": {"expires": 10.0}},
    # Each run is one event for each team that has any.
    "mark unsettled reservations": {
        "task": "usage.mark_unsettled",
        "schedule": 60.0,
        "options": {"expires": 120.0},
    },
    "return tasks whose lease ran out": {
        "task": "tasks.return_expired",
        "schedule": 1.0,
        "options": {"expires": 2.0},
    },
    "send webhooks": {"task": "webhooks.deliver", "schedule": 1.0, "options": {"expires": 2.0}},
    "forget old deliveries": {"task": "webhooks.expire", "schedule": 3600.0},
    "send mail": {"task": "mail.send", "schedule": 2.0, "options": {"expires": 4.0}},
    "write exports": {"task": "exports.write", "schedule": 2.0, "options": {"expires": 4.0}},
    "sweep exports": {"task": "exports.sweep", "schedule": 60.0, "options": {"expires": 60.0}},
    "expire noted reads of the log": {"task": "activity.expire_reads", "schedule": 3600.0},
    "make the log's partitions": {"task": "activity.ensure_partitions", "schedule": 3600.0},
    # More often than the hour that lies between a team's checkpoints, so that a run that failed is made up for soon.
    "sign checkpoints": {
        "task": "activity.sign_checkpoints",
        "schedule": 300.0,
        "options": {"expires": 300.0},
    },
    "expire idempotency keys": {"task": "idempotency.expire", "schedule": 3600.0},
    "expire sessions": {"task": "sessions.expire", "schedule": 3600.0},
    "expire mailed tokens": {"task": "mailed_tokens.expire", "schedule": 3600.0},
    "expire account events": {"task": "account_events.expire", "schedule": 3600.0},
    "expire failed mails": {"task": "failed_mails.expire", "schedule": 3600.0},
    "bring secrets under the first key": {"task": "secrets.encrypt_again", "schedule": 3600.0},
    "expire tickets": {"task": "tickets.expire", "schedule": 600.0},
    "purge what the log no longer keeps": {"task": "activity.prune", "schedule": 3600.0},
    "sum refused attempts": {"task": "refusals.fold", "schedule": 15.0, "options": {"expires": 30.0}},
    "go on erasing": {"task": "erasures.go_on", "schedule": 60.0, "options": {"expires": 120.0}},
    "close months": {"task": "billing.close", "schedule": 300.0},
    "estimate charges": {"task": "billing.estimate", "schedule": 300.0},
    "recount usage": {"task": "billing.recount", "schedule": 900.0},
    "ask the payment provider": {"task": "billing.pay", "schedule": 5.0, "options": {"expires": 10.0}},
    "hear from the payment provider": {
        "task": "billing.hear",
        "schedule": 5.0,
        "options": {"expires": 10.0},
    },
    "purge deleted teams": {"task": "teams.purge", "schedule": 3600.0},
}
