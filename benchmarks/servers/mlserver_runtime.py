"""MLServer runtime for MiniLM and keras: mlserver-huggingface does not import beside torch 2.13, keras has none."""

import runtime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Runtime(MLModel):
    async def load(self) -> bool:
        self.model = runtime.load(self.name)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        codec = StringCodec if payload.inputs[0].datatype == "BYTES" else NumpyCodec
        values = self.model(codec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("OUTPUT", values)])
