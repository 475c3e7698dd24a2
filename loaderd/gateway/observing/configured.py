"""Whether spans are to be exported, and how: by OpenTelemetry's own variables, without importing any of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"


def exports_spans(environment: Mapping[str, str]) -> bool:
    """True when an exporter is asked for that there is; logs why not, where one is asked for that there is not."""
    values = {name: value.strip() for name, value in environment.items() if name.startswith("OTEL_")}
    if values.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporters = [each.strip() for each in values.get("OTEL_TRACES_EXPORTER", "").split(",") if each.strip()]
    if not exporters and not any(values.get(name) for name in _ENDPOINTS):
        return False
    if exporters == ["none"]:
        return False
    if exporters and "otlp" not in exporters:
        log.error("no spans are exported: OTEL_TRACES_EXPORTER may be otlp or none, not %s", ",".join(exporters))
        return False
    protocol = next((values[name] for name in _PROTOCOLS if values.get(name)), PROTOCOL)
    if protocol != PROTOCOL:
        log.error("no spans are exported: OTLP is spoken as %s, not as %s", PROTOCOL, protocol)
        return False
    return True
