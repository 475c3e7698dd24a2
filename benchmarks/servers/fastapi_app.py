"""What people write by hand: FastAPI, models in the process, one endpoint. BENCH_VARIANT=async: on the event loop."""

import os

import runtime
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
MODELS = {name: runtime.load(name) for name in runtime.names()}


class Request(BaseModel):
    input: str | list[float]


@app.get("/health")
def health():
    return {"ok": True}


if os.environ.get("BENCH_VARIANT") == "async":

    @app.post("/{name}")
    async def predict(name: str, request: Request):
        return {"prediction": MODELS[name]([request.input])[0]}

else:

    @app.post("/{name}")
    def predict(name: str, request: Request):  # runs in the thread pool
        return {"prediction": MODELS[name]([request.input])[0]}
