"""TorchServe handler. The model archive carries nothing but this file: the models lie in BENCH_MODELS."""

import json


class Handler:
    model = None

    def initialize(self, context):
        import runtime

        self.model = runtime.load(context.manifest["model"]["modelName"])

    def handle(self, data):
        items = []
        for row in data:
            body = row.get("body") or row.get("data")
            items.append((body if isinstance(body, dict) else json.loads(body))["input"])
        return [{"prediction": value} for value in self.model(items)]


_service = Handler()


def handle(data, context):
    if _service.model is None:
        _service.initialize(context)
    return _service.handle(data) if data is not None else None
