"""A model's configuration tells what is."""

from __future__ import annotations

import pytest

from loaderd.errors import ModelNotLoaded
from loaderd.gateway.model_config import model_config
from loaderd.gateway.routes import Route

SIGNATURE = {
    "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28]}],
    "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
    "labels": ["no", "yes"],
}


def route(**changes: object) -> Route:
    values = {"framework": "sklearn", "sockets": ("/a", "/b"), "signature": SIGNATURE, "max_queue": 7, **changes}
    return Route("m-v1", "m", "1.0", "loaded", **values)  # type: ignore[arg-type]


def test_it_tells_types_sizes_and_processes() -> None:
    config = model_config(route(max_batch_size=8, load="l", cache_ttl_seconds=5.0), "m")
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("m", "sklearn", 8)
    assert (config["input"][0]["data_type"], config["input"][0]["dims"]) == ("TYPE_UINT8", [28, 28])
    assert (config["output"][0]["data_type"], config["output"][0]["dims"]) == ("TYPE_STRING", [])
    assert config["instance_group"][0]["count"] == 2
    assert config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 7
    assert config["response_cache"] == {"enable": True}
    assert {key: value["string_value"] for key, value in config["parameters"].items()} == {
        "model_id": "m-v1",
        "lineage": "m",
        "version": "1.0",
        "labels": "no,yes",
    }


def test_a_model_without_labels_has_none_and_one_that_is_not_loaded_no_configuration() -> None:
    config = model_config(route(signature={**SIGNATURE, "labels": None}))
    assert config["name"] == "m-v1"
    assert "labels" not in config["parameters"]
    with pytest.raises(ModelNotLoaded):
        model_config(route(sockets=()))
