"""LitServe: one LitAPI for each model, two inference workers. usage: lit_server.py PORT"""

import os
import sys

import litserve as ls
import runtime

BATCH = os.environ.get("BENCH_VARIANT") == "batch"


class Api(ls.LitAPI):
    def setup(self, device):
        self.model = runtime.load(self.api_path.strip("/"))

    def decode_request(self, request):
        return request["input"]

    def predict(self, x):
        return self.model(x) if BATCH else self.model([x])[0]

    def encode_response(self, output):
        return {"prediction": output}


if __name__ == "__main__":
    options = {"max_batch_size": 32, "batch_timeout": 0.005} if BATCH else {}
    server = ls.LitServer(
        [Api(api_path="/" + name, **options) for name in runtime.names()],
        accelerator="cpu",
        devices=1,
        workers_per_device=2,
        timeout=60,
        restart_workers=True,
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
