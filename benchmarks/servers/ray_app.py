"""Ray Serve: one application for each model, two replicas each. usage: ray_app.py PORT"""

import os
import signal
import sys

import ray
import runtime
from ray import serve

BATCH = os.environ.get("BENCH_VARIANT") == "batch"
KEPT = ("BENCH_MODELS", "BENCH_RUN", "PYTHONPATH", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "USE_TF", "KERAS_BACKEND")
ENVIRONMENT = {name: os.environ[name] for name in KEPT}


class Plain:
    def __init__(self, name):
        self.model = runtime.load(name)

    async def __call__(self, request):
        body = await request.json()
        return {"prediction": self.model([body["input"]])[0]}


class Batched(Plain):
    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
    async def many(self, items):
        return self.model(items)

    async def __call__(self, request):
        body = await request.json()
        return {"prediction": await self.many(body["input"])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20, log_to_driver=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[1])}, logging_config={"enable_access_log": False}
    )
    for name in runtime.names():
        deployment = serve.deployment(Batched if BATCH else Plain, name=name).options(
            num_replicas=2,
            max_ongoing_requests=64,
            ray_actor_options={"num_cpus": 0.25, "runtime_env": {"env_vars": ENVIRONMENT}},
        )
        serve.run(deployment.bind(name), name=name, route_prefix="/" + name)
    signal.pause()
