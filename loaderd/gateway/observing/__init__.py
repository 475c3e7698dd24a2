"""What a prediction was and where its time went: W3C trace context, OpenTelemetry spans, the log of slow requests."""
