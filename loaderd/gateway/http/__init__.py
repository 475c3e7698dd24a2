"""HTTP/1.1 as the inference door speaks it: httptools' parser on an asyncio protocol, without a task per request."""
