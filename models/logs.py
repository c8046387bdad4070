"""Structured logs of every process, with secrets scrubbed from every line, whoever wrote it."""

import logging
import re
import sys
from typing import Any
from uuid import UUID

import structlog
from structlog.typing import EventDict, Processor

SECRET_KEYS = re.compile(r"token|password|secret|authorization|cookie|ticket|api_?key", re.IGNORECASE)
SECRET_VALUES = re.compile(
    r"ah[a-z]_[\w-]+"  # our own tokens, wherever they stand
    r"|(?<=[?&]token=)[^&\s\"']+|(?<=[?&]ticket=)[^&\s\"']+"  # credentials in a URL
    r"|(?<=Bearer )[^\s\"']+"
    r"|(?<=://)[^/@\s\"']*:[^/@\s\"']+(?=@)"  # user:password of a URL
)
SCRUBBED = "[scrubbed]"


def scrub(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replaces secrets, by the name of a field or by the look of a value."""
    return {key: SCRUBBED if SECRET_KEYS.search(key) else _scrub_value(value) for key, value in event.items()}


def _scrub_value(value: Any) -> Any:
    if isinstance(value, str):
        return SECRET_VALUES.sub(SCRUBBED, value)
    if isinstance(value, dict):
        return {
            key: SCRUBBED if SECRET_KEYS.search(str(key)) else _scrub_value(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_scrub_value(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return SECRET_VALUES.sub(SCRUBBED, str(value) if isinstance(value, UUID) else repr(value))


def configure_logs(*, level: str, format_: str) -> None:
    """Sends structlog and the standard library's logging down one road: one JSON object a line (or a line for people)."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer() if format_ == "console" else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                scrub,  # after tracebacks have become text, last before it is written
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
