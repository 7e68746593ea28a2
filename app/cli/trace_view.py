"""A trace as people read it, as JSON, and as OTLP/JSON for any OpenTelemetry collector."""

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, Final

from app.cli.output import as_table, iso
from app.cli.trace import Span, Trace

_INTERNAL: Final = 1
_CLIENT: Final = 3
"""Kinds of span: a request goes to another system, everything else stays in ours."""

_OK: Final = 1
_ERROR: Final = 2
_NS_PER_MS: Final = 1_000_000


def as_text(trace: Trace) -> Iterator[str]:
    """Yield the lines of a table, parts indented under what they are part of."""
    rows = [
        [iso(span.start_ms), _duration(span), "  " * span.path.count("/") + span.name, span.cause]
        for span in trace.spans
    ]
    yield from as_table(["start", "duration", "span", "cause"], rows)


def as_fields(trace: Trace) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "key": trace.key,
        "trace_id": trace.trace_id,
        "spans": [
            {
                "span_id": trace.span_id(span.path),
                "parent_id": None if span.parent is None else trace.span_id(span.parent),
                "name": span.name,
                "start": iso(span.start_ms),
                "end": None if span.is_open else iso(span.end_ms),
                "duration_ms": span.end_ms - span.start_ms,
                "cause": span.cause,
                "attributes": dict(span.attributes),
            }
            for span in trace.spans
        ],
    }


def as_otlp(trace: Trace) -> dict[str, Any]:
    """Return an ExportTraceServiceRequest in OTLP's JSON form: hex ids, 64-bit numbers as text, kinds as numbers."""
    account, mode = trace.namespace
    resource = {
        "service.name": "fillonce",
        "service.version": metadata.version("fillonce"),
        "fillonce.account": account,
        "fillonce.mode": mode,
    }
    scope = {"name": "fillonce.journal", "version": metadata.version("fillonce")}
    spans = [_otlp_span(trace, span) for span in trace.spans]
    return {
        "resourceSpans": [
            {"resource": {"attributes": _attributes(resource)}, "scopeSpans": [{"scope": scope, "spans": spans}]}
        ]
    }


def _otlp_span(trace: Trace, span: Span) -> dict[str, Any]:
    attributes = {**span.attributes, "fillonce.cause": span.cause, "fillonce.open": span.is_open}
    parent = {} if span.parent is None else {"parentSpanId": trace.span_id(span.parent)}
    return {
        "traceId": trace.trace_id,
        "spanId": trace.span_id(span.path),
        **parent,
        "name": span.name,
        "kind": _CLIENT if span.name == "request" else _INTERNAL,
        "startTimeUnixNano": str(span.start_ms * _NS_PER_MS),
        "endTimeUnixNano": str(span.end_ms * _NS_PER_MS),
        "attributes": _attributes(attributes),
        "status": _status(span),
    }


def _status(span: Span) -> dict[str, Any]:
    if span.is_bad:
        return {"code": _ERROR, "message": span.cause}
    return {} if span.is_open else {"code": _OK}


def _attributes(values: Mapping[str, str | int]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: str | int) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}


def _duration(span: Span) -> str:
    whole, rest = divmod(span.end_ms - span.start_ms, 1000)
    return f"{whole}.{rest:03d} s{', open' if span.is_open else ''}"
