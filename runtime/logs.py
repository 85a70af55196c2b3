"""Logging: one handler on stderr, as text for people or as JSON for machines."""

import json
import logging
import sys
from typing import Any

from greenroom.runtime.settings import LogSettings

_FIELDS = ("actor", "generation", "decision")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (epoch seconds), level, logger, message, structured fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({f: getattr(record, f) for f in _FIELDS if hasattr(record, f)})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def start_logging(settings: LogSettings) -> None:
    """Send greenroom's records, and others' warnings, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter()
        if settings.format == "json"
        else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("greenroom").setLevel(settings.level.upper())
