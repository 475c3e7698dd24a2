"""Triton Python backend model: the requests of a batch joined, one call of the model, its answers handed out again."""

import json
import os
import sys

sys.path[:0] = os.environ["BENCH_PATH"].split(":")  # the backend's process does not read PYTHONPATH

import numpy as np  # noqa: E402
import runtime  # noqa: E402
import triton_python_backend_utils as pb  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.model = runtime.load(config["name"])
        self.is_text = config["input"][0]["data_type"] == "TYPE_STRING"

    def execute(self, requests):
        inputs = [pb.get_input_tensor_by_name(request, "INPUT").as_numpy() for request in requests]
        rows = np.concatenate(inputs)
        items = [value.decode() for value in rows[:, 0]] if self.is_text else rows
        values, responses, at = self.model(items), [], 0
        for part in inputs:
            out = np.array([[value] for value in values[at : at + len(part)]], dtype=object)
            responses.append(pb.InferenceResponse([pb.Tensor("OUTPUT", out)]))
            at += len(part)
        return responses
