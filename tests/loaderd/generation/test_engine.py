"""Several texts written at once, by a real network: each as if it were alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loaderd.errors import InvalidInput, Overloaded
from loaderd.frameworks.base import LoadedModel
from loaderd.generation import engine
from tests.loaderd.generation.conftest import Load
from tests.loaderd.generation.runs import Run
from tests.loaderd.generation.writer import MAX_TOKENS, SUBJECTS

PROMPTS = [
    *(f"<|user|>{subject}<|assistant|>" for subject in SUBJECTS),
    "Thank",
    "The invoice will be paid on Friday and the laptop is back within a week. Please send",
    "Die",
]


def generated(model: Any, prompt: str, tokens: int) -> list[int]:
    """What transformers itself writes, greedily."""
    import torch

    checkpoint = model.checkpoint
    given = checkpoint.tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        made = checkpoint.network.generate(**given, do_sample=False, max_new_tokens=tokens)
    return made[0, given["input_ids"].shape[1] :].tolist()


def continuation(model: Any, prompt: str, tokens: int) -> str:
    made = generated(model, prompt, tokens)
    return str(model.checkpoint.tokenizer.decode(made, skip_special_tokens=True))


def chat(subject: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": subject}]


class TestGreedy:
    @pytest.mark.parametrize("prompt", PROMPTS)
    def test_it_writes_what_transformers_writes(self, model: LoadedModel, run: Run, prompt: str) -> None:
        writing = run.start(prompt, max_tokens=40)
        run.finish()
        made = generated(model, prompt, 40)
        assert run.text(writing) == continuation(model, prompt, 40)
        assert run.finals[writing]["usage"]["completion_tokens"] == len(made)

    def test_texts_that_join_midway_and_leave_are_written_as_if_they_were_alone(
        self, model: LoadedModel, run: Run
    ) -> None:
        lengths = [50, 9, 33, 3, 21, 60, 1]
        expected = [continuation(model, prompt, tokens) for prompt, tokens in zip(PROMPTS, lengths, strict=True)]
        writings = []
        for prompt, tokens in zip(PROMPTS, lengths, strict=True):
            writings.append(run.start(prompt, max_tokens=tokens))
            for _ in range(4):
                run.step()
        run.finish()
        assert [run.text(writing) for writing in writings] == expected

    def test_texts_that_begin_together_are_written_as_if_they_were_alone(self, model: LoadedModel, run: Run) -> None:
        writing = run.start(prompts=PROMPTS, max_tokens=30)
        run.finish()
        assert [choice["text"] for choice in run.choices(writing)] == [
            continuation(model, prompt, 30) for prompt in PROMPTS
        ]

    def test_more_texts_than_fit_at_once_wait_for_their_turn(self, model: LoadedModel, run: Run) -> None:
        run.generation.bound(2, 64)
        writing = run.start(prompts=PROMPTS, max_tokens=12)
        assert run.generation.waiting == len(PROMPTS)
        run.step()
        assert run.generation.waiting >= len(PROMPTS) - 2
        run.finish()
        assert [choice["text"] for choice in run.choices(writing)] == [
            continuation(model, prompt, 12) for prompt in PROMPTS
        ]

    def test_a_prompt_read_in_pieces_is_read_as_one(
        self, model: Any, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model.generation._decoder, "chunk_tokens", 5)
        first = run.start(PROMPTS[0], max_tokens=40)
        steps_before = 0
        while not run.generation._active:  # type: ignore[attr-defined]
            run.step()
            steps_before += 1
        assert steps_before > 1
        second = run.start(PROMPTS[5], max_tokens=20)
        run.finish()
        assert run.text(first) == continuation(model, PROMPTS[0], 40)
        assert run.text(second) == continuation(model, PROMPTS[5], 20)

    def test_the_memory_of_all_rows_is_bounded(self, model: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(model.generation._decoder, "max_cells", 2 * MAX_TOKENS)
        writings = [run.start(messages=chat(subject)) for subject in SUBJECTS]  # each may fill the context
        run.step()
        assert len(model.generation._active) == 2
        run.finish()
        assert [run.text(writing) for writing in writings] == list(SUBJECTS.values())

    def test_the_plain_form_answers_as_before(self, model: LoadedModel) -> None:
        answers = model.predict({"text": np.array(PROMPTS, dtype=object)})["generated_text"].tolist()
        assert answers == [continuation(model, prompt, 24) for prompt in PROMPTS]


class TestSampling:
    def test_a_seed_gives_the_same_text_whoever_is_beside_it(self, run: Run) -> None:
        alone = run.alone("Thank", temperature=1.5, seed=7, max_tokens=30)
        beside = [run.start(prompt, max_tokens=20) for prompt in PROMPTS]
        run.step()
        again = run.start("Thank", temperature=1.5, seed=7, max_tokens=30)
        run.finish()
        assert run.text(again) == alone
        assert len({run.alone("Thank", temperature=1.5, seed=seed, max_tokens=30) for seed in range(4)}) > 1
        assert len(beside) == len(PROMPTS)

    def test_texts_of_one_prompt_differ_but_are_the_same_again(self, run: Run) -> None:
        wishes = {"prompts": ["Thank"], "n": 4, "temperature": 1.5, "seed": 3, "max_tokens": 20}
        first, second = run.start(**wishes), run.start(**wishes)
        run.finish()
        texts = [choice["text"] for choice in run.choices(first)]
        assert len(set(texts)) > 1
        assert [choice["text"] for choice in run.choices(second)] == texts
        assert [choice["index"] for choice in run.choices(first)] == [0, 1, 2, 3]

    def test_without_a_seed_texts_differ(self, run: Run) -> None:
        assert len({run.alone("Thank", temperature=2.0, max_tokens=30) for _ in range(4)}) > 1

    def test_a_narrow_nucleus_is_greedy(self, run: Run) -> None:
        assert run.alone("Thank", temperature=1.0, top_p=0.0, seed=1, max_tokens=30) == run.alone(
            "Thank", max_tokens=30
        )

    def test_a_bias_bans_and_forces_a_token(self, model: LoadedModel, run: Run) -> None:
        (first, *_) = generated(model, PROMPTS[0], 1)
        banned = run.start(PROMPTS[0], max_tokens=1, logit_bias={str(first): -100}, top_logprobs=0)
        forced = run.start(PROMPTS[1], max_tokens=3, logit_bias={str(first): 100})
        run.finish()
        assert run.choices(banned)[0]["logprobs"][0]["token"] != model.checkpoint.tokenizer.decode([first])  # type: ignore[attr-defined]
        assert run.text(forced) == model.checkpoint.tokenizer.decode([first] * 3)  # type: ignore[attr-defined]

    def test_a_frequency_penalty_ends_a_repetition(self, run: Run, model: LoadedModel) -> None:
        (token, *_) = generated(model, PROMPTS[0], 1)
        pushed = {str(token): 40.0}
        repeating = run.alone(PROMPTS[0], max_tokens=30, logit_bias=pushed)
        penalised = run.alone(PROMPTS[0], max_tokens=30, logit_bias=pushed, frequency_penalty=2.0)
        piece = model.checkpoint.tokenizer.decode([token])  # type: ignore[attr-defined]
        assert penalised.count(piece) < repeating.count(piece)


class TestEnds:
    def test_a_text_ends_at_its_end(self, run: Run) -> None:
        for subject, answer in SUBJECTS.items():
            writing = run.start(messages=chat(subject))
            run.finish()
            (choice,) = run.choices(writing)
            assert (choice["text"], choice["finish_reason"]) == (answer, "stop")

    def test_a_text_ends_at_its_length(self, run: Run) -> None:
        writing = run.start(PROMPTS[0], max_tokens=5)
        run.finish()
        assert run.choices(writing)[0]["finish_reason"] == "length"
        assert run.finals[writing]["usage"]["completion_tokens"] == 5

    @pytest.mark.parametrize("stop", ["invoice", " the inv", "ice. It", "."])
    def test_a_stop_sequence_is_cut_exactly(self, run: Run, stop: str) -> None:
        whole = SUBJECTS["Invoice"]
        writing = run.start(messages=chat("Invoice"), stop=["never said", stop])
        streamed = run.start(messages=chat("Invoice"), stop=[stop], stream=True)
        run.finish()
        (choice,) = run.choices(writing)
        assert (choice["text"], choice["finish_reason"]) == (whole[: whole.index(stop)], "stop")
        assert run.streamed(streamed) == choice["text"]
        assert run.pieces[streamed][-1][-1]["finish_reason"] == "stop"

    def test_the_context_is_the_limit(self, model: LoadedModel, run: Run) -> None:
        tokens = 120
        prompt = tuple([5] * tokens)
        writing = run.start(prompts=[prompt], max_tokens=MAX_TOKENS - tokens, logit_bias={"0": -100})
        run.finish()
        assert run.finals[writing]["usage"]["total_tokens"] == MAX_TOKENS
        with pytest.raises(InvalidInput, match=f"context is {MAX_TOKENS} tokens; the request has 120") as refused:
            run.alone(prompts=[prompt], max_tokens=MAX_TOKENS - tokens + 1)
        assert refused.value.facts == {"param": "max_tokens", "reason": "context_length_exceeded"}

    def test_a_prompt_that_cannot_fit_is_refused_unread(
        self, model: Any, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model.generation._vocabulary, "_backend", None)
        for wishes in ({"prompts": ["word " * 100_000]}, {"messages": chat("word " * 100_000)}):
            with pytest.raises(InvalidInput, match="the request has 500000") as refused:
                run.generation.start(wishes)
            assert refused.value.facts["reason"] == "context_length_exceeded"


class TestPrompts:
    """They become tokens in the steps, and not where the request is taken."""

    def test_none_is_read_before_the_first_step(self, model: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as away:
            away.setattr(model.generation._vocabulary, "_backend", None)
            writings = [run.start("Thank", max_tokens=2), run.start(messages=chat("Invoice"), max_tokens=2)]
        assert run.generation.waiting == 2
        assert run.generation.has_work
        run.finish()
        assert all(writing in run.finals for writing in writings)

    def test_one_that_cannot_be_read_is_an_answer_and_the_others_are_written(
        self, model: Any, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        vocabulary, read = model.generation._vocabulary, model.generation._vocabulary.tokens_of

        def tokens_of(text: str) -> list[int]:
            if text == "no memory":
                raise MemoryError
            if text == "panic":
                raise BaseException("a panic of the tokenizer")
            return list(read(text))

        monkeypatch.setattr(vocabulary, "tokens_of", tokens_of)
        writings = [run.start(prompt, max_tokens=3) for prompt in ("no memory", "Thank", "panic", "Die")]
        run.finish()
        assert [writing in run.finals for writing in writings] == [False, True, False, True]
        assert isinstance(run.errors[writings[0]], Overloaded)
        assert isinstance(run.errors[writings[2]], InvalidInput)
        assert "BaseException: a panic of the tokenizer" in str(run.errors[writings[2]])

    def test_a_step_reads_a_bounded_piece_and_those_that_are_written_go_on(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine, "PIECE_CHARACTERS", 10)
        first = run.start("Thank", max_tokens=20, stream=True, logit_bias={"0": -100})
        run.step()
        many = run.start(prompts=["Die", "Thank", "Please", "Friday"], max_tokens=2)
        pieces = len(run.pieces[first])
        run.step()
        assert run.generation.waiting == 4, "8 of its characters, then 6"
        assert len(run.pieces[first]) == pieces + 1
        run.finish()
        assert len(run.choices(many)) == 4
        assert run.finals[many]["usage"]["prompt_tokens"] > 4

    def test_one_that_is_cancelled_while_it_is_read_is_not_written(
        self, model: Any, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        vocabulary, read = model.generation._vocabulary, model.generation._vocabulary.tokens_of
        gone, unread, stays = (run.start(prompt, max_tokens=3) for prompt in ("Thank", "Please", "Die"))

        def tokens_of(text: str) -> list[int]:
            assert text != "Please", "nobody waits for it"
            if text == "Thank":
                run.generation.cancel(gone)
                run.generation.cancel(unread)
            return list(read(text))

        monkeypatch.setattr(vocabulary, "tokens_of", tokens_of)
        run.finish()
        assert set(run.finals) == {stays}
        assert run.errors == {}


class TestStreams:
    @pytest.mark.parametrize("subject", SUBJECTS)
    def test_pieces_make_the_text_and_none_ends_within_a_character(self, run: Run, subject: str) -> None:
        writing = run.start(messages=chat(subject), stream=True)
        run.finish()
        texts = [choice["text"] for piece in run.pieces[writing] for choice in piece]
        assert "".join(texts) == SUBJECTS[subject]
        assert len(texts) > 5
        assert not any("\N{REPLACEMENT CHARACTER}" in text for text in texts)
        assert "choices" not in run.finals[writing]

    def test_a_piece_has_a_token_of_every_text(self, run: Run) -> None:
        writing = run.start(prompts=["Thank", "Die"], n=2, max_tokens=4, stream=True)
        run.finish()
        assert {choice["index"] for choice in run.pieces[writing][0]} == {0, 1, 2, 3}
        assert run.finals[writing]["usage"]["completion_tokens"] == 16

    def test_the_prompt_is_the_beginning_where_it_is_asked_for(self, run: Run) -> None:
        text = run.alone("Thank", max_tokens=8)
        assert run.alone("Thank", max_tokens=8, echo=True) == "Thank" + text
        streamed = run.start("Thank", max_tokens=8, echo=True, stream=True)
        run.finish()
        assert run.streamed(streamed) == "Thank" + text

    def test_logprobs_are_those_of_the_network(self, model: Any, run: Run) -> None:
        import torch

        prompt = PROMPTS[0]
        writing = run.start(prompt, max_tokens=6, top_logprobs=3)
        run.finish()
        (choice,) = run.choices(writing)
        made = generated(model, prompt, 6)
        ids = torch.tensor([[*model.checkpoint.tokenizer(prompt)["input_ids"], *made]])
        with torch.inference_mode():
            logs = model.checkpoint.network(ids).logits[0].log_softmax(dim=-1)
        start = ids.shape[1] - len(made)
        for at, (token, told) in enumerate(zip(made, choice["logprobs"], strict=True)):
            expected = logs[start + at - 1]
            assert told["logprob"] == pytest.approx(float(expected[token]), abs=1e-4)
            assert [top["logprob"] for top in told["top"]] == pytest.approx(expected.topk(3).values.tolist(), abs=1e-4)
        assert "".join(told["token"] for told in choice["logprobs"]) == choice["text"]

    def test_logprobs_end_with_the_text(self, run: Run) -> None:
        whole = SUBJECTS["Invoice"]
        writing = run.start(messages=chat("Invoice"), stop=["paid on"], top_logprobs=0)
        run.finish()
        (choice,) = run.choices(writing)
        told = "".join(token["token"] for token in choice["logprobs"])
        assert choice["text"] == whole[: whole.index("paid on")]
        assert told.startswith(choice["text"])
        assert len(told) < len(choice["text"]) + len("paid on")


class TestLeaving:
    def test_a_cancelled_text_makes_room_for_the_next(self, model: LoadedModel, run: Run) -> None:
        run.generation.bound(1, 64)
        gone, waits = run.start("Thank", max_tokens=100, logit_bias={"0": -100}), run.start("Die", max_tokens=5)
        for _ in range(3):
            run.step()
        assert run.generation.waiting == 1
        run.generation.cancel(gone)
        run.step()
        assert run.generation.waiting == 0
        run.finish()
        assert run.text(waits) == continuation(model, "Die", 5)
        assert gone not in run.finals
        assert gone not in run.errors

    def test_one_that_waits_may_be_cancelled_as_well(self, run: Run) -> None:
        run.generation.bound(1, 64)
        stays, gone = run.start("Thank", max_tokens=3), run.start("Die", max_tokens=3)
        run.step()
        run.generation.cancel(gone)
        assert run.generation.waiting == 0
        run.finish()
        assert stays in run.finals
        assert gone not in run.finals

    def test_one_leaves_and_the_others_are_written_on(self, model: LoadedModel, run: Run) -> None:
        writings = [run.start(prompt, max_tokens=30) for prompt in PROMPTS]
        for _ in range(5):
            run.step()
        for at in (1, 5):  # the longest prompt among them
            run.generation.cancel(writings[at])
        run.finish()
        for at, writing in enumerate(writings):
            if at in (1, 5):
                assert writing not in run.finals
            else:
                assert run.text(writing) == continuation(model, PROMPTS[at], 30)

    def test_too_many_are_refused(self, run: Run) -> None:
        run.generation.bound(1, 2)
        started = [run.start("Thank", max_tokens=2) for _ in range(2)]
        with pytest.raises(Overloaded, match="2 texts waiting"):
            run.start("Thank", max_tokens=2)
        run.finish()
        assert all(writing in run.finals for writing in started)

    def test_a_network_that_fails_ends_only_what_it_was_writing(
        self, model: Any, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failing = [run.start(prompt, max_tokens=20) for prompt in PROMPTS[:2]]
        run.step()
        run.step()
        forward = model.checkpoint.network.forward
        with monkeypatch.context() as broken:
            broken.setattr(model.checkpoint.network, "forward", _raising)
            run.step()
        assert model.checkpoint.network.forward == forward
        assert [str(run.errors[writing]) for writing in failing] == ["out of luck"] * 2
        assert run.alone(PROMPTS[2], max_tokens=20) == continuation(model, PROMPTS[2], 20)

    def test_a_prompt_that_fails_leaves_the_others_alone(
        self, model: Any, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        active = run.start(PROMPTS[0], max_tokens=20)
        run.step()
        failing = run.start(PROMPTS[1], max_tokens=20)
        with monkeypatch.context() as broken:
            broken.setattr(model.generation._decoder, "join", _raising)
            run.step()
        assert str(run.errors[failing]) == "out of luck"
        run.finish()
        assert run.text(active) == continuation(model, PROMPTS[0], 20)

    def test_what_cannot_be_let_go_of_ends_what_is_being_written(
        self, model: Any, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short, long = run.start(PROMPTS[0], max_tokens=2), run.start(PROMPTS[1], max_tokens=20)
        run.step()
        keep = model.generation._decoder.keep
        with monkeypatch.context() as broken:
            broken.setattr(model.generation._decoder, "keep", lambda rows: _raising() if rows else keep(rows))
            while long not in run.errors:
                run.step()
        assert str(run.errors[long]) == "out of luck"
        assert short in run.finals
        assert run.alone(PROMPTS[2], max_tokens=20) == continuation(model, PROMPTS[2], 20)

    def test_what_fails_when_a_request_is_cancelled_ends_the_others_with_an_error(
        self, model: Any, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stays, gone = run.start(PROMPTS[0], max_tokens=20), run.start(PROMPTS[1], max_tokens=20)
        run.step()
        run.step()
        run.generation.cancel(gone)
        with monkeypatch.context() as broken:
            broken.setattr(model.generation._decoder, "keep", _raising)
            run.step()
            assert str(run.errors[stays]) == "out of luck"
            waits = run.start(PROMPTS[2], max_tokens=20)
            with pytest.raises(RuntimeError, match="out of luck"):
                run.step()
        assert gone not in run.errors
        run.finish()
        assert run.text(waits) == continuation(model, PROMPTS[2], 20)


def _raising(*_: Any, **__: Any) -> Any:
    raise RuntimeError("out of luck")


class TestRefusals:
    @pytest.mark.parametrize(
        ("wishes", "param", "word"),
        [
            ({"temperature": 2.1}, "temperature", "from 0 to 2"),
            ({"temperature": True}, "temperature", "number"),
            ({"top_p": -0.1}, "top_p", "from 0 to 1"),
            ({"n": 0}, "n", "from 1 to 128"),
            ({"n": 129}, "n", "from 1 to 128"),
            ({"prompts": ["a", "b"], "n": 65}, "n", "130 texts"),
            ({"max_tokens": 0}, "max_tokens", "at least 1"),
            ({"stop": ["a"] * 5}, "stop", "up to 4"),
            ({"stop": [""]}, "stop", "characters"),
            ({"stop": "a"}, "stop", "list"),
            ({"prompts": []}, "prompt", "not empty"),
            ({"prompts": [""]}, "prompt", "no tokens"),
            ({"prompts": [[1, -1]]}, "prompt", "token numbers"),
            ({"prompts": [[1, 9_999]]}, "prompt", "token 9999"),
            ({"logit_bias": {"9999": 1}}, "logit_bias", "token 9999"),
            ({"logit_bias": {"x": 1}}, "logit_bias", "token numbers"),
            ({"top_logprobs": 21}, "top_logprobs", "from 0 to 20"),
            ({"messages": []}, "messages", "at least one"),
            ({"messages": chat("a"), "prompts": ["b"]}, "prompt", "or messages"),
            ({"best_of": 2}, "best_of", "not known"),
            ({"messages": [{"role": "system", "content": "Be kind."}]}, "messages", "takes no system message"),
        ],
    )
    def test_what_cannot_be_done_is_refused_by_name(
        self, run: Run, wishes: dict[str, Any], param: str, word: str
    ) -> None:
        given = wishes if "messages" in wishes else {"prompts": ["Thank"], **wishes}
        with pytest.raises(InvalidInput, match=word) as refused:
            run.alone(**given)
        assert refused.value.facts["param"] == param
        assert not run.generation.has_work

    def test_a_model_without_a_chat_template_says_where_to_go(self, load_writer: Load) -> None:
        model = load_writer(chat=False)
        assert model.generation is not None
        with pytest.raises(InvalidInput, match=r"no chat template.*/v1/completions"):
            Run(model.generation).alone(messages=chat("Invoice"))

    def test_a_model_that_does_not_generate_has_no_generation(self, tmp_path: Any) -> None:
        from tests.contract import cases

        case = next(case for case in cases.CASES if case.name == "safetensors-embedding")
        case.build(tmp_path)
        assert cases.load(cases.artifact_of(case, tmp_path), case.framework).generation is None
