from __future__ import annotations

import subprocess
import sys

import pytest

from loaderd.gateway.observing.configured import exports_spans

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environment", "exports"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "door", "OTEL_TRACES_SAMPLER": "always_on"}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none"} | ENDPOINT, False),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "zipkin"} | ENDPOINT, False),
        ({"OTEL_SDK_DISABLED": "true"} | ENDPOINT, False),
        ({"OTEL_SDK_DISABLED": "false"} | ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"} | ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"} | ENDPOINT, False),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"} | ENDPOINT,
            True,
        ),
    ],
)
def test_the_standard_variables_decide(environment: dict[str, str], exports: bool) -> None:
    assert exports_spans(environment) is exports


def test_why_nothing_is_exported_is_said(caplog: pytest.LogCaptureFixture) -> None:
    exports_spans({"OTEL_TRACES_EXPORTER": "zipkin"})
    exports_spans(ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert ["zipkin" in caplog.messages[0], "grpc" in caplog.messages[1]] == [True, True]


OPENED = """
import asyncio, sys
import loaderd.gateway.__main__, loaderd.worker.main
from loaderd.gateway.access import Access
from loaderd.gateway.links import Links
from loaderd.gateway.observing.observer import Observer
from loaderd.gateway.supervisor import Supervisor

async def opened():
    observer = Observer(Supervisor(Access(), Links()))
    await observer.open()
    return observer.spans is not None

print(asyncio.run(opened()), sorted({name.partition(".")[0] for name in sys.modules} & {"opentelemetry", "requests"}))
"""


@pytest.mark.parametrize(
    ("environment", "printed"),
    [({}, "False []"), ({"OTEL_TRACES_EXPORTER": "otlp"}, "True ['opentelemetry', 'requests']")],
)
def test_nothing_is_imported_unless_it_is_configured(environment: dict[str, str], printed: str) -> None:
    run = subprocess.run([sys.executable, "-c", OPENED], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == printed
