"""Kept answers: what makes two requests the same, the bound, the age, and what ends with a load."""

from __future__ import annotations

import tracemalloc
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from loaderd import wire
from loaderd.gateway.cache import LARGEST_SHARE, MAX_BODY_BYTES, OVERHEAD_BYTES, Cache, Figures, Key
from loaderd.gateway.routes import Route, Routes

INFER, PREDICT, ANSWER = wire.Kind.INFER, wire.Kind.PREDICT, wire.Kind.ANSWER
HEAD = {"name": "a", "header_bytes": None}


def table(*model_ids: str, **changes: Any) -> Routes:
    row = {"lineage": "x", "version": "1", "state": "loaded", "sockets": ["s"], "load": "1", "cache_ttl_seconds": 10.0}
    return Routes.from_message({model_id: {**row, "version": model_id, **changes} for model_id in model_ids})


def route(model_id: str = "a", **changes: Any) -> Route:
    return table(model_id, **changes).models[model_id]


def key_of(body: bytes, *, head: Mapping[str, Any] = HEAD, kind: wire.Kind = INFER, of: Route | None = None) -> Key:
    key = Cache().key(of or route(), kind, head, [body])
    assert key is not None
    return key


def answer(body: bytes, head: bytes = b"") -> wire.Message:
    return wire.Message(7, ANSWER, head, body)


@pytest.fixture
def cache() -> Cache:
    cache = Cache()
    cache.follow(table("a", "b"))
    return cache


class TestKey:
    def test_all_that_shapes_an_answer_is_part_of_it(self) -> None:
        digests = [
            key.digest
            for key in (
                key_of(b"body"),
                key_of(b"bodz"),
                key_of(b"body", kind=PREDICT),
                key_of(b"body", head={"name": "b", "header_bytes": None}),
                key_of(b"body", head={"name": "a", "header_bytes": 3}),
                key_of(b"body", head={**HEAD, "usage": True}),
                key_of(b"body", of=route(load="2")),
                key_of(b"body", of=route("b")),
            )
        ]
        assert len(set(digests)) == len(digests)

    def test_what_does_not_shape_it_is_not(self) -> None:
        plain = key_of(b"body")
        assert key_of(b"body", head={**HEAD, "trace": True, "bulk": True}) == plain
        assert key_of(b"body", head={"header_bytes": None, "name": "a"}) == plain
        assert Cache().key(route(), INFER, HEAD, [b"bo", b"d", b"y"]) == plain

    @pytest.mark.parametrize(
        "changes",
        [{"cache_ttl_seconds": 0.0}, {"cacheable": False}, {"load": ""}],
        ids=lambda changes: next(iter(changes)),
    )
    def test_a_model_whose_answers_are_not_kept_has_none(self, changes: dict[str, Any]) -> None:
        assert Cache().key(route(**changes), INFER, HEAD, [b"body"]) is None

    def test_generated_text_and_large_bodies_have_none(self) -> None:
        assert Cache().key(route(), wire.Kind.GENERATE, {}, [b"{}"]) is None
        assert Cache().key(route(), INFER, HEAD, [b"x" * MAX_BODY_BYTES]) is not None
        assert Cache().key(route(), INFER, HEAD, [b"x" * MAX_BODY_BYTES, b"x"]) is None

    def test_an_id_at_the_beginning_is_no_part_of_it(self) -> None:
        first, second = key_of(b'{"id":"17","inputs":[]}'), key_of(b'{ "id" : "eighteen","inputs":[]}')
        assert first.digest == second.digest
        assert (first.request_id, second.request_id) == (b"17", b"eighteen")
        without = key_of(b'{"inputs":[]}')
        assert (without.request_id, without.digest == first.digest) == (None, False)
        with_header = [
            key_of(body, head={"name": "a", "header_bytes": len(body) - 2})
            for body in (b'{"id":"1","inputs":[]}\0\1', b'{"id":"22","inputs":[]}\0\1')
        ]
        assert with_header[0].digest == with_header[1].digest != first.digest

    @pytest.mark.parametrize(
        ("body", "other"),
        [
            (b'{"inputs":[],"id":"17"}', b'{"inputs":[],"id":"18"}'),
            (b'{"id":17,"inputs":[]}', b'{"id":18,"inputs":[]}'),
            (b'{"id":"a\\u0062","inputs":[]}', b'{"id":"a\\u0063","inputs":[]}'),
            (b'{"id":"17","id":"18","inputs":[]}', b'{"id":"17","id":"19","inputs":[]}'),
        ],
        ids=["not first", "a number", "escaped", "twice"],
    )
    def test_another_id_is(self, body: bytes, other: bytes) -> None:
        assert (key_of(body).request_id, key_of(other).request_id) == (None, None)
        assert key_of(body).digest != key_of(other).digest

    def test_binary_tensors_may_say_id_and_be_views(self) -> None:
        keys = []
        for name in (b"1", b"two"):
            text = b'{"id":"%b","inputs":[]}' % name
            head = {"name": "a", "header_bytes": len(text)}
            keys.append(Cache().key(route(), INFER, head, [text, memoryview(b'\0"id"\0')]))
            assert keys[-1] == Cache().key(route(), INFER, head, [text + b'\0"id"\0'])
        assert keys[0] is not None
        assert keys[1] is not None
        assert keys[0].digest == keys[1].digest

    def test_an_id_in_a_later_piece_makes_it_part_of_it(self) -> None:
        key = Cache().key(route(), INFER, HEAD, [b'{"id":"17",', b'"id":"18","inputs":[]}'])
        assert key is not None
        assert key.request_id is None


class TestAnswers:
    def test_it_comes_back_as_it_was(self, cache: Cache) -> None:
        key = key_of(b"body")
        cache.put(key, route(), answer(b"answer\0\1", b"6"), now=0.0)
        again = cache.get(key, now=9.9)
        assert again == wire.Message(0, ANSWER, b"6", b"answer\0\1")

    def test_each_request_gets_its_own_id(self, cache: Cache) -> None:
        first, second = (key_of(b'{"id":"%b","inputs":[]}' % name) for name in (b"1", "zwölf".encode()))
        document = orjson.dumps({"model_name": "a", "outputs": [], "id": "1"})
        cache.put(first, route(), answer(document), now=0.0)
        for key, name in ((first, "1"), (second, "zwölf")):
            found = cache.get(key, now=1.0)
            assert found is not None
            assert orjson.loads(found.body) == {"model_name": "a", "outputs": [], "id": name}
        without = key_of(b'{"inputs":[]}')
        assert cache.get(without, now=1.0) is None

    def test_the_json_part_before_binary_tensors_stays_measured(self, cache: Cache) -> None:
        first, second = (key_of(b'{"id":"%b","inputs":[]}' % name) for name in (b"1", b"a longer one"))
        document = orjson.dumps({"outputs": [], "id": "1"})
        cache.put(first, route(), answer(document + b'\0,"id":"1"}', b"%d" % len(document)), now=0.0)
        found = cache.get(second, now=1.0)
        assert found is not None
        length = int(found.head)
        assert orjson.loads(found.body[:length]) == {"outputs": [], "id": "a longer one"}
        assert found.body[length:] == b'\0,"id":"1"}'

    @pytest.mark.parametrize(
        "message",
        [
            wire.Message(1, wire.Kind.ERROR, b"", b'{"outputs":[],"id":"1"}'),
            answer(b'{"outputs":[],"id":"2"}'),
            answer(b'{"outputs":[]}'),
            answer(b'{"outputs":[],"id":"1"}', b'{"header_bytes":null,"trace":{}}'),
        ],
        ids=["error", "another id", "no id", "traced"],
    )
    def test_what_is_for_its_own_request_is_kept_for_nobody(self, cache: Cache, message: wire.Message) -> None:
        key = key_of(b'{"id":"1","inputs":[]}')
        assert cache.put(key, route(), message, now=0.0) is None
        assert (cache.get(key, now=0.0), cache.used_bytes) == (None, 0)

    def test_usage_is_kept_with_it(self, cache: Cache) -> None:
        key = key_of(b"{}", kind=PREDICT, head={"usage": True})
        head = b'{"header_bytes":null,"usage":{"tokens":3}}'
        cache.put(key, route(), answer(b"{}", head), now=0.0)
        found = cache.get(key, now=0.0)
        assert found is not None
        assert found.head == head


class TestAge:
    def test_an_answer_grows_old(self, cache: Cache) -> None:
        key = key_of(b"body")
        cache.put(key, route(), answer(b"x"), now=5.0)
        assert cache.get(key, now=14.9) is not None
        assert (cache.get(key, now=15.0), cache.used_bytes) == (None, 0)

    def test_asking_does_not_make_it_younger_and_computing_again_does(self, cache: Cache) -> None:
        key = key_of(b"body")
        cache.put(key, route(), answer(b"x"), now=0.0)
        assert cache.get(key, now=9.0) is not None
        assert cache.get(key, now=11.0) is None
        cache.put(key, route(), answer(b"y"), now=11.0)
        assert cache.get(key, now=20.0) is not None

    def test_a_shorter_age_counts_for_what_is_there(self, cache: Cache) -> None:
        key = key_of(b"body")
        cache.put(key, route(), answer(b"x"), now=0.0)
        cache.follow(table("a", cache_ttl_seconds=2.0))
        assert cache.get(key, now=1.0) is not None
        assert cache.get(key, now=2.0) is None


class TestLoads:
    @pytest.mark.parametrize(
        "after",
        [table("a", load="2"), table("b"), table("a", cache_ttl_seconds=0.0), table("a", cacheable=False)],
        ids=["another load", "gone", "switched off", "not reproducible"],
    )
    def test_nothing_outlives_its_load(self, cache: Cache, after: Routes) -> None:
        cache.put(key_of(b"body"), route(), answer(b"x"), now=0.0)
        cache.follow(after)
        assert (cache.get(key_of(b"body"), now=0.0), cache.used_bytes) == (None, 0)

    def test_an_answer_that_comes_after_its_load_is_not_kept(self, cache: Cache) -> None:
        key = key_of(b"body")
        cache.follow(table("a", load="2"))
        shared = cache.put(key, route(), answer(b"x"), now=0.0)
        assert shared is not None, "those who asked the old load, too, get it"
        assert cache.used_bytes == 0

    def test_nothing_is_kept_before_the_table_is_there(self) -> None:
        cache = Cache()
        cache.put(key_of(b"body"), route(), answer(b"x"), now=0.0)
        assert cache.used_bytes == 0

    def test_what_did_not_change_stays(self, cache: Cache) -> None:
        key = key_of(b"body")
        cache.put(key, route(), answer(b"x"), now=0.0)
        cache.follow(table("a", "b", "c", reason="something else"))
        assert cache.get(key, now=0.0) is not None


class TestBound:
    def test_the_least_recently_asked_go_first(self) -> None:
        cache = Cache(10 * (OVERHEAD_BYTES + 32))
        cache.follow(table("a"))
        keys = [key_of(b"%d" % number) for number in range(11)]
        for key in keys[:10]:
            cache.put(key, route(), answer(b""), now=0.0)
        assert cache.get(keys[0], now=0.0) is not None
        cache.put(keys[10], route(), answer(b""), now=0.0)
        assert [cache.get(key, now=0.0) is not None for key in keys] == [True, False] + [True] * 9

    def test_one_large_answer_does_not_drive_out_all_others(self) -> None:
        cache = Cache(1 << 20)
        cache.follow(table("a"))
        cache.put(key_of(b"small"), route(), answer(b"x"), now=0.0)
        cache.put(key_of(b"large"), route(), answer(b"x" * ((1 << 20) // LARGEST_SHARE)), now=0.0)
        assert cache.get(key_of(b"large"), now=0.0) is None
        assert cache.get(key_of(b"small"), now=0.0) is not None

    def test_a_smaller_bound_counts_at_once(self, cache: Cache) -> None:
        for number in range(100):
            cache.put(key_of(b"%d" % number), route(), answer(b"x" * 1000), now=0.0)
        cache.max_bytes = 20_000
        assert 0 < cache.used_bytes <= 20_000
        assert cache.get(key_of(b"99"), now=0.0) is not None

    @pytest.mark.parametrize("size", [1, 300, 20_000])
    def test_it_is_what_python_really_takes(self, size: int) -> None:
        bound = 8 << 20
        cache = Cache(bound)
        cache.follow(table("a"))
        of = route()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(2 * bound // (size + OVERHEAD_BYTES)):
                key = cache.key(of, INFER, HEAD, [b"%d" % number])
                assert key is not None
                cache.put(key, of, answer(bytes(size)), now=float(number))
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert 0.5 * bound < taken <= bound


class TestFigures:
    def test_they_are_counted_told_once_and_since_a_load(self, cache: Cache) -> None:
        key = key_of(b"body")
        cache.put(key, route(), answer(b"x"), now=0.0)
        cache.get(key, now=0.0)
        cache.get(key, now=0.0)
        cache.note_shared(route())
        cost = 32 + 1 + OVERHEAD_BYTES
        assert cache.figures("a") == Figures(hits=2, shared=1, misses=1, entries=1, bytes=cost)
        told = {"model_id": "a", "hits": 2, "shared": 1, "misses": 1, "entries": 1, "bytes": cost}
        assert cache.take() == [told]
        assert cache.take() == []
        cache.get(key, now=0.0)
        assert cache.take() == [{**told, "hits": 1, "shared": 0, "misses": 0}]
        cache.follow(table("a", load="2"))
        assert cache.take() == [{"model_id": "a", "hits": 0, "shared": 0, "misses": 0, "entries": 0, "bytes": 0}]
        assert cache.figures_of_load("a") == Figures()
        assert cache.figures("a").hits == 3

    def test_forgetting_tells_how_many(self, cache: Cache) -> None:
        for model_id in ("a", "a", "b"):
            of = route(model_id)
            cache.put(key_of(b"%d" % cache.used_bytes, of=of), of, answer(b"x"), now=0.0)
        assert cache.forget("a") == 2
        assert cache.forget("a") == 0
        assert cache.forget() == 1
        assert cache.used_bytes == 0


BOUND = 12 * (OVERHEAD_BYTES + 64)
BODIES = st.sampled_from([b"%d" % number for number in range(30)])
MODELS = st.sampled_from(["a", "b", "c"])


class Machine(RuleBasedStateMachine):
    """The cache beside the plainest thing that could be right: a list in the order of asking."""

    @initialize()
    def begin(self) -> None:
        self.cache = Cache(BOUND)
        self.now = 0.0
        self.loads = dict.fromkeys("abc", 1)
        self.answers = 0
        self.known: OrderedDict[tuple[str, bytes], tuple[float, bytes, int]] = OrderedDict()
        self.bound = BOUND
        self._follow()

    def _route(self, model_id: str) -> Route:
        return route(model_id, load=str(self.loads[model_id]))

    def _follow(self) -> None:
        models = {model_id: self._route(model_id) for model_id in self.loads}
        self.cache.follow(Routes(models=models))

    def _make_room(self, cost: int = 0) -> None:
        while self.known and sum(cost for *_, cost in self.known.values()) + cost > self.bound:
            self.known.popitem(last=False)

    @rule(model_id=MODELS, body=BODIES, size=st.integers(0, 1500))
    def put(self, model_id: str, body: bytes, size: int) -> None:
        self.answers += 1
        text = b"%d:" % self.answers + b"x" * size
        self.cache.put(key_of(body, of=self._route(model_id)), self._route(model_id), answer(text), self.now)
        cost = 32 + len(text) + OVERHEAD_BYTES
        if cost * LARGEST_SHARE <= self.bound:
            self.known.pop((model_id, body), None)
            self._make_room(cost)
            self.known[model_id, body] = self.now, text, cost

    @rule(model_id=MODELS, body=BODIES)
    def get(self, model_id: str, body: bytes) -> None:
        found = self.cache.get(key_of(body, of=self._route(model_id)), self.now)
        kept_at, text, _ = self.known.get((model_id, body), (-100.0, b"", 0))
        if self.now - kept_at >= 10.0:
            self.known.pop((model_id, body), None)
            assert found is None
        else:
            self.known.move_to_end((model_id, body))
            assert found is not None
            assert found.body == text

    @rule(model_id=MODELS)
    def load_again(self, model_id: str) -> None:
        self.loads[model_id] += 1
        self._follow()
        self._drop(model_id)

    @rule(model_id=MODELS)
    def forget(self, model_id: str) -> None:
        assert self.cache.forget(model_id) == self._drop(model_id)

    def _drop(self, model_id: str) -> int:
        gone = [key for key in self.known if key[0] == model_id]
        for key in gone:
            del self.known[key]
        return len(gone)

    @rule(seconds=st.floats(0.1, 6.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(bound=st.integers(0, BOUND))
    def bind(self, bound: int) -> None:
        self.bound = self.cache.max_bytes = bound
        self._make_room()

    @invariant()
    def never_more_than_the_bound_and_all_of_it_is_accounted_for(self) -> None:
        assert self.cache.used_bytes <= self.bound
        assert self.cache.used_bytes == sum(cost for *_, cost in self.known.values())
        assert sum(self.cache.figures(model_id).bytes for model_id in "abc") == self.cache.used_bytes
        assert sum(self.cache.figures(model_id).entries for model_id in "abc") == len(self.known)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
