"""The `openai` package works here as it does against its own service: real models behind a real gateway."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from loaderd.protocol import ArtifactFile, ModelSpec
from tests.contract import transformers_artifacts
from tests.deadline import wait_until
from tests.loaderd.gateway.conftest import Served
from tests.loaderd.gateway.door import TOKEN, Door, grant, row
from tests.loaderd.generation import writer
from tests.loaderd.generation.writer import MAX_TOKENS, SUBJECTS
from tests.loaderd.worker.process import ModelProcess, spec

LOAD_SECONDS = 120  # transformers is imported by each process
WIDTH = 32
MAX_ACTIVE = 4
MAX_WAITING = 3

pytestmark = [pytest.mark.xdist_group("transformers"), pytest.mark.timeout(240)]


def registered(name: str, directory: Path, **changes: Any) -> ModelSpec:
    files = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        seen, digest = path.stat(), hashlib.sha256(path.read_bytes()).hexdigest()
        relative = path.relative_to(directory).as_posix()
        files.append(ArtifactFile(relative, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, digest))
    return spec(
        name,
        framework="transformers",
        format="safetensors",
        directory=str(directory),
        files=tuple(files),
        config=json.loads((directory / "config.json").read_text()),
        **changes,
    )


@pytest.fixture(scope="module")
def write(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Makes the writer's artifact in a folder."""
    cache = request.config.cache
    assert cache is not None
    return lambda directory: writer.write(directory, cache)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, write: Callable[[Path], None]) -> Iterator[Served]:
    """writer-v1 writes, encoder-v1 embeds, classifier-v1 does neither."""
    folder = tmp_path_factory.mktemp("openai")
    specs = [spec("classifier")]
    for name, build in (("writer", write), ("encoder", transformers_artifacts.encoder)):
        (folder / name).mkdir()
        build(folder / name)
        specs.append(registered(name, folder / name, max_batch_size=MAX_ACTIVE, max_queue=MAX_WAITING))
    with ExitStack() as stack:
        models = [stack.enter_context(ModelProcess(model, folder / f"{model.lineage}.sock")) for model in specs]
        door = stack.enter_context(Door(folder))
        door.listening()
        for model in models:
            model.channel.settimeout(LOAD_SECONDS)
            model.ready()
        yield Served(door, door.http(), {model.spec.model_id: model for model in models}, {})


@pytest.fixture
def served(standing: Served) -> Served:
    standing.reset()
    return standing


@pytest.fixture
def address(served: Served) -> str:
    return f"http://127.0.0.1:{served.door.port}/v1"


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=address, api_key=TOKEN, max_retries=0) as client:
        yield client


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


class TestModels:
    def test_the_list_names_what_can_be_asked_here(self, client: openai.OpenAI) -> None:
        models = {model.id: model for model in client.models.list()}
        assert models.keys() == {"writer", "writer-v1", "encoder", "encoder-v1"}
        assert all(model.owned_by == "modelhub" and model.created > 1_600_000_000 for model in models.values())

    def test_one_of_them(self, client: openai.OpenAI) -> None:
        assert client.models.retrieve("writer").id == "writer"
        with pytest.raises(openai.NotFoundError, match='No model named "nobody"') as unknown:
            client.models.retrieve("nobody")
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError, match="neither embeds nor generates"):
            client.models.retrieve("classifier")

    def test_one_that_is_not_loaded_says_how_to_load_it(self, served: Served, client: openai.OpenAI) -> None:
        served.change("writer-v1", state="unloaded", sockets=[])
        with pytest.raises(openai.ConflictError, match="load it with POST"):
            client.models.retrieve("writer-v1")
        assert "writer-v1" not in {model.id for model in client.models.list()}


class TestChat:
    @pytest.mark.parametrize("model", ["writer", "writer-v1"])
    def test_a_message(self, client: openai.OpenAI, model: str) -> None:
        answer = client.chat.completions.create(model=model, messages=user("Invoice"), temperature=0)
        (choice,) = answer.choices
        assert (choice.message.role, choice.message.content) == ("assistant", SUBJECTS["Invoice"])
        assert (choice.finish_reason, choice.index, choice.logprobs) == ("stop", 0, None)
        assert (answer.object, answer.model) == ("chat.completion", model)
        assert answer.id.startswith("chatcmpl-")
        assert answer.usage is not None
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

    @pytest.mark.parametrize("subject", SUBJECTS)
    def test_a_streamed_message(self, client: openai.OpenAI, subject: str) -> None:
        chunks = list(
            client.chat.completions.create(
                model="writer",
                messages=user(subject),
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        *told, last = chunks
        assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == SUBJECTS[subject]
        assert len(told) > 5
        assert told[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in told] == [None] * (len(told) - 1) + ["stop"]
        assert not last.choices
        assert last.usage is not None
        assert last.usage.completion_tokens > 5
        assert len({chunk.id for chunk in chunks}) == 1
        assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
        assert all(chunk.usage is None for chunk in told)

    def test_without_asking_for_it_a_stream_tells_no_usage(self, client: openai.OpenAI) -> None:
        chunks = list(client.chat.completions.create(model="writer", messages=user("Invoice"), stream=True, n=1))
        assert all(chunk.choices for chunk in chunks)

    def test_the_helper_for_streams(self, client: openai.OpenAI) -> None:
        with client.chat.completions.stream(
            model="writer", messages=user("Größe"), temperature=0, stream_options={"include_usage": True}
        ) as stream:
            for _ in stream:
                pass
            whole = stream.get_final_completion()
        assert whole.choices[0].message.content == SUBJECTS["Größe"]
        assert whole.usage is not None

    def test_several_texts(self, client: openai.OpenAI) -> None:
        wishes: dict[str, Any] = {"n": 3, "temperature": 1.5, "seed": 5, "max_completion_tokens": 12}
        first, second = (
            client.chat.completions.create(model="writer", messages=user("Délai"), **wishes) for _ in range(2)
        )
        texts = [choice.message.content for choice in first.choices]
        assert len(set(texts)) > 1
        assert texts == [choice.message.content for choice in second.choices]
        streamed = ["", "", ""]
        for chunk in client.chat.completions.create(model="writer", messages=user("Délai"), stream=True, **wishes):
            for choice in chunk.choices:
                streamed[choice.index] += choice.delta.content or ""
        assert streamed == texts

    def test_parts_of_text_and_what_clients_send_by_default(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(
            model="writer",
            messages=[{"role": "user", "content": [{"type": "text", "text": "Invoice"}], "name": "ada"}],
            temperature=0,
            user="ada",
            store=False,
            metadata={"case": "7"},
            service_tier="auto",
            response_format={"type": "text"},
            modalities=["text"],
        )
        assert answer.choices[0].message.content == SUBJECTS["Invoice"]

    def test_logprobs(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(
            model="writer", messages=user("Invoice"), temperature=0, logprobs=True, top_logprobs=2
        )
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        assert "".join(token.token for token in logprobs.content) == SUBJECTS["Invoice"]
        for token in logprobs.content:
            assert token.logprob <= 0
            assert token.top_logprobs[0].token == token.token

    def test_a_stream_that_is_refused_at_once_is_refused_with_its_status(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="takes no system message"):
            client.chat.completions.create(
                model="writer", messages=[{"role": "system", "content": "Be kind."}], stream=True
            )


class TestCompletions:
    def test_texts_are_continued(self, client: openai.OpenAI) -> None:
        answer = client.completions.create(
            model="writer", prompt=["Thank you for", "Please send"], temperature=0, max_tokens=4
        )
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert {choice.finish_reason for choice in answer.choices} == {"length"}
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 8
        assert (answer.object, answer.id[:5]) == ("text_completion", "cmpl-")

    def test_sixteen_tokens_unless_told_otherwise(self, client: openai.OpenAI) -> None:
        answer = client.completions.create(model="writer", prompt="Die", logit_bias={"0": -100})
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 16

    def test_a_stream_with_an_echo_and_a_stop(self, client: openai.OpenAI) -> None:
        prompt = "<|user|>Invoice<|assistant|>"
        chunks = list(
            client.completions.create(
                model="writer", prompt=prompt, temperature=0, max_tokens=60, echo=True, stop=" It will", stream=True
            )
        )
        assert "".join(chunk.choices[0].text for chunk in chunks) == prompt + "Thank you for the invoice."
        assert chunks[-1].choices[0].finish_reason == "stop"

    def test_token_numbers(self, client: openai.OpenAI) -> None:
        one = client.completions.create(model="writer", prompt=[5, 6, 7], temperature=0, max_tokens=3)
        two = client.completions.create(model="writer", prompt=[[5, 6, 7], [8]], temperature=0, max_tokens=3)
        assert one.choices[0].text == two.choices[0].text
        assert len(two.choices) == 2

    def test_logprobs(self, client: openai.OpenAI) -> None:
        answer = client.completions.create(model="writer", prompt="Thank", temperature=0, max_tokens=5, logprobs=2)
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.tokens is not None
        assert "".join(logprobs.tokens) == answer.choices[0].text
        assert logprobs.text_offset == np.cumsum([0, *map(len, logprobs.tokens[:-1])]).tolist()
        assert all(len(top) <= 2 for top in logprobs.top_logprobs or [])


class TestEmbeddings:
    TEXTS = ["what a wonderful day", "the food was cold", "great value"]

    def expected(self, served: Served) -> np.ndarray:
        entry = {"name": "text", "datatype": "BYTES", "shape": [3], "data": self.TEXTS}
        answer = served.http.post("/v2/models/encoder/infer", json={"inputs": [entry]}).raise_for_status().json()
        return np.array(answer["outputs"][0]["data"], dtype=np.float32).reshape(3, WIDTH)

    @pytest.mark.parametrize("encoding", [openai.omit, "float", "base64"])
    def test_vectors_of_a_batch(self, served: Served, client: openai.OpenAI, encoding: Any) -> None:
        answer = client.embeddings.create(model="encoder", input=self.TEXTS, encoding_format=encoding)
        assert [row.index for row in answer.data] == [0, 1, 2]
        vectors: list[Any] = [row.embedding for row in answer.data]
        if encoding == "base64":
            vectors = [np.frombuffer(base64.b64decode(vector), dtype="<f4") for vector in vectors]
        np.testing.assert_allclose(np.array(vectors), self.expected(served), rtol=1e-5, atol=1e-6)
        assert (answer.object, answer.model) == ("list", "encoder")

    def test_tokens_are_counted(self, client: openai.OpenAI) -> None:
        counts = [
            client.embeddings.create(model="encoder", input=texts).usage for texts in (["great value"], self.TEXTS)
        ]
        assert counts[0].prompt_tokens == counts[0].total_tokens == 4  # with those at the beginning and the end
        assert counts[1].total_tokens > counts[0].total_tokens

    def test_one_text(self, client: openai.OpenAI) -> None:
        (row,) = client.embeddings.create(model="encoder-v1", input="great value", dimensions=WIDTH).data
        assert len(row.embedding) == WIDTH

    @pytest.mark.parametrize(
        ("wishes", "param", "sentence"),
        [
            ({"dimensions": 8}, "dimensions", f"vectors of {WIDTH} numbers"),
            ({"dimensions": 0}, "dimensions", "at least 1"),
            ({"input": [[1, 2], [3]]}, "input", "check_embedding_ctx_length=False"),
            ({"input": [1, 2]}, "input", "token numbers"),
            ({"input": []}, "input", "at least one text"),
            ({"encoding_format": "hex"}, "encoding_format", "base64"),
            ({"model": "writer"}, "model", "does not embed texts; ask it at /v1/completions"),
            ({"model": "classifier"}, "model", "/v2/models/classifier/infer"),
            ({"extra_body": {"truncate": True}}, "truncate", "not supported here"),
        ],
    )
    def test_what_cannot_be_done_is_refused_by_name(
        self, client: openai.OpenAI, wishes: dict[str, Any], param: str, sentence: str
    ) -> None:
        given = {"model": "encoder", "input": self.TEXTS, **wishes}
        with pytest.raises(openai.BadRequestError, match=sentence) as refused:
            client.embeddings.create(**given)
        assert refused.value.param == param
        assert refused.value.type == "invalid_request_error"


class TestErrors:
    @pytest.mark.parametrize(
        ("wishes", "param", "sentence"),
        [
            ({"temperature": 3}, "temperature", "from 0 to 2"),
            ({"max_completion_tokens": 0}, "max_completion_tokens", "max_completion_tokens must be"),
            ({"max_tokens": 0}, "max_tokens", "max_tokens must be"),
            ({"max_completion_tokens": 500}, "max_completion_tokens", f"context is {MAX_TOKENS} tokens"),
            ({"n": 200}, "n", "from 1 to 128"),
            ({"stop": ["a"] * 5}, "stop", "up to 4"),
            ({"top_logprobs": 2}, "top_logprobs", "needs logprobs"),
            ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
            ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "not supported"),
            ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
            ({"reasoning_effort": "low"}, "reasoning_effort", "not supported"),
            ({"extra_body": {"top_k": 5}}, "top_k", "not supported"),
            ({"messages": []}, "messages", "at least one"),
            ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "tools are not supported"),
            ({"messages": [{"role": "system", "content": "Be kind."}]}, "messages", "takes no system message"),
            (
                {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
                "messages[0].content",
                "only hold text",
            ),
            ({"model": ""}, "model", "lists those"),
            ({"model": "encoder"}, "model", "does not generate text; ask it at /v1/embeddings"),
        ],
    )
    def test_what_cannot_be_done_is_refused_by_name(
        self, client: openai.OpenAI, wishes: dict[str, Any], param: str, sentence: str
    ) -> None:
        given = {"model": "writer", "messages": user("Invoice"), **wishes}
        with pytest.raises(openai.BadRequestError, match=sentence) as refused:
            client.chat.completions.create(**given)
        assert refused.value.param == param

    @pytest.mark.parametrize(
        ("wishes", "param"),
        [
            ({"prompt": []}, "prompt"),
            ({"prompt": ""}, "prompt"),
            ({"best_of": 3}, "best_of"),
            ({"suffix": "end"}, "suffix"),
            ({"logprobs": 21}, "logprobs"),
            ({"logprobs": 1, "echo": True}, "logprobs"),
            ({"prompt": [999_999]}, "prompt"),
        ],
    )
    def test_completions_refuse_by_name_too(self, client: openai.OpenAI, wishes: dict[str, Any], param: str) -> None:
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(**{"model": "writer", "prompt": "Thank", **wishes})
        assert refused.value.param == param

    def test_a_context_that_is_too_small_has_its_code(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="writer", prompt="Thank " * 200)
        assert refused.value.code == "context_length_exceeded"

    def test_who_may_not(self, served: Served, address: str) -> None:
        served.door.allow({TOKEN: grant("ada", "predict"), "load-only": grant("bob", "load")})
        stranger = openai.OpenAI(base_url=address, api_key="wrong", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError) as refused:
            stranger.models.list()
        assert refused.value.code == "invalid_api_key"
        with openai.OpenAI(base_url=address, api_key="load-only", max_retries=0) as client:
            assert client.models.list().data
            with pytest.raises(openai.PermissionDeniedError):
                client.chat.completions.create(model="writer", messages=user("Invoice"))

    def test_a_model_that_is_not_loaded_is_not_asked_again(self, served: Served, address: str) -> None:
        served.change("writer-v1", state="unloaded", sockets=[])
        asked = []
        http = openai.DefaultHttpxClient(event_hooks={"request": [lambda request: asked.append(request.url.path)]})
        client = openai.OpenAI(base_url=address, api_key=TOKEN, max_retries=3, http_client=http)
        with client, pytest.raises(openai.ConflictError, match="is unloaded"):
            client.chat.completions.create(model="writer", messages=user("Invoice"))
        assert len(asked) == 1

    def test_paths_and_methods(self, served: Served) -> None:
        for method, path, status in (
            ("GET", "/v1/chat/completions", 405),
            ("POST", "/v1/responses", 404),
            ("GET", "/v1", 404),
        ):
            answer = served.http.request(method, path, json={})
            assert answer.status_code == status
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}

    def test_a_body_that_is_no_json(self, served: Served) -> None:
        answer = served.http.post("/v1/embeddings", content=b"{")
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"


LONG = {"temperature": 0, "logit_bias": {"0": -100}}
"""Never ends by itself, so that it fills the context."""


class TestTogether:
    def test_many_clients_at_once_each_get_their_own(self, client: openai.OpenAI) -> None:
        subjects = [*SUBJECTS] * 2

        def ask(subject: str) -> str:
            while True:
                try:
                    answer = client.chat.completions.create(model="writer", messages=user(subject), temperature=0)
                except openai.RateLimitError:
                    continue  # as its clients do, though they wait
                return answer.choices[0].message.content or ""

        with ThreadPoolExecutor(len(subjects)) as pool:
            assert list(pool.map(ask, subjects)) == [SUBJECTS[subject] for subject in subjects]

    def test_the_asynchronous_client(self, address: str) -> None:
        async def told(client: openai.AsyncOpenAI, subject: str) -> str:
            stream = await client.chat.completions.create(
                model="writer", messages=user(subject), temperature=0, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        async def main() -> list[str]:
            async with openai.AsyncOpenAI(base_url=address, api_key=TOKEN) as client:
                vectors, *texts = await asyncio.gather(
                    client.embeddings.create(model="encoder", input="great value"),
                    *(told(client, subject) for subject in SUBJECTS),
                )
                assert len(vectors.data[0].embedding) == WIDTH
                return list(texts)

        assert asyncio.run(main()) == list(SUBJECTS.values())

    def test_who_leaves_a_stream_makes_room(self, served: Served, client: openai.OpenAI) -> None:
        process = served.models["writer-v1"]
        streams = [
            client.completions.create(model="writer", prompt="Die", max_tokens=MAX_TOKENS - 10, stream=True, **LONG)
            for _ in range(MAX_ACTIVE)
        ]
        for stream in streams:
            next(iter(stream))
            stream.close()
        wait_until(lambda: process.stats()["in_flight"] == 0, what="the process writes for nobody")
        answer = client.completions.create(model="writer", prompt="Die", max_tokens=2)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 2

    def test_past_the_queue_the_answer_is_429(self, served: Served, client: openai.OpenAI) -> None:
        with ThreadPoolExecutor(20) as pool:
            asked = [
                pool.submit(client.completions.create, model="writer", prompt="Die", max_tokens=140, **LONG)
                for _ in range(20)
            ]
            errors = [error for one in asked if (error := one.exception()) is not None]
        assert errors
        assert len(errors) < 20
        for error in errors:
            assert isinstance(error, openai.RateLimitError)
            assert error.type == "rate_limit_error"
            assert error.response.headers["retry-after"]

    def test_plain_predictions_are_answered_while_texts_are_written(
        self, served: Served, client: openai.OpenAI
    ) -> None:
        stream = iter(
            client.completions.create(model="writer", prompt="Die", max_tokens=MAX_TOKENS - 10, stream=True, **LONG)
        )
        next(stream)
        entry = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Die"]}
        answer = served.http.post("/v2/models/writer/infer", json={"inputs": [entry]})
        assert answer.status_code == 200
        assert served.models["writer-v1"].stats()["in_flight"] == 1
        assert sum(1 for _ in stream) > 0

    def test_a_process_that_dies_ends_the_stream_with_an_error(
        self, served: Served, client: openai.OpenAI, tmp_path: Path, write: Callable[[Path], None]
    ) -> None:
        write(tmp_path)
        with ModelProcess(registered("mortal", tmp_path), tmp_path / "mortal.sock") as process:
            process.channel.settimeout(LOAD_SECONDS)
            process.ready()
            served.door.route({**served.table, **_row(process)})
            stream = iter(client.completions.create(model="mortal", prompt="Die", max_tokens=150, stream=True, **LONG))
            next(stream)
            process.process.kill()
            with pytest.raises(openai.APIError, match="process") as lost:
                for _ in stream:
                    pass
            assert lost.value.code == "model_process_died"


def _row(process: ModelProcess) -> dict[str, Any]:
    return {process.spec.model_id: row(process, process.signature)}


def test_the_stream_is_server_sent_events(served: Served) -> None:
    body = {"model": "writer", "messages": user("Invoice"), "temperature": 0, "stream": True}
    with served.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line for line in answer.iter_lines() if line]
    assert all(line.startswith("data: ") for line in events)
    assert events[-1] == "data: [DONE]"
    assert all(json.loads(line[6:])["object"] == "chat.completion.chunk" for line in events[:-1])


def test_a_text_that_takes_too_long_ends_with_its_deadline(standing: Served, tmp_path: Path) -> None:
    with Door(tmp_path, predict_timeout_seconds=0.05) as door:
        door.listening()
        door.allow({TOKEN: grant("ada", "predict")})
        process = standing.models["writer-v1"]
        door.route(_row(process))
        body = {"model": "writer", "prompt": "Die", "max_tokens": 150, **LONG}
        answer = door.http().post("/v1/completions", json=body)
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "model_timeout"
        wait_until(lambda: process.stats()["in_flight"] == 0, what="the process writes for nobody")
