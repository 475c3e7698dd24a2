"""Plans for text pipelines, beside the pipelines themselves."""

from __future__ import annotations

import dataclasses
import json
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Perceptron, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, MultinomialNB
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.svm import LinearSVC

from loaderd.frameworks.sklearn.plans import bags, heads, terms, text, words
from loaderd.frameworks.sklearn.plans.text import TextPlan
from tests.loaderd.frameworks.sklearn.plans.serving import answers, planned, served

pytestmark = pytest.mark.xdist_group("sklearn")

TEXTS = [
    "the parcel came late and broken",
    "please explain the invoice, the invoice is wrong",
    "order forty pieces of the new cable",
    "Café déjà-vu: the PARCEL came back",
    "when do you open on monday",
    "forty pieces more, please",
]
KINDS = ["complaint", "question", "order", "complaint", "question", "order"]

WORDS = st.sampled_from(
    [
        "the",
        "The",
        "parcel",
        "late",
        "a",
        "I",
        "x1",
        "_",
        "und",
        "é",
        "École",
        "naïve",
        "nai\u0308ve",
        "ß",
        "İ",
        "日本",
        "42",
    ]
)
SEPARATORS = st.sampled_from([" ", "  ", ", ", "\n", "-", "'", "\x00", "\u00a0", "."])
WRITTEN = st.lists(st.tuples(WORDS, SEPARATORS), max_size=30).map(lambda parts: "".join(a + b for a, b in parts))
ANY_TEXT = st.one_of(WRITTEN, st.text(max_size=40))

VECTORIZING = st.fixed_dictionaries(
    {
        "ngram_range": st.sampled_from([(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3)]),
        "lowercase": st.booleans(),
        "strip_accents": st.sampled_from([None, "unicode", "ascii"]),
        "stop_words": st.sampled_from([None, "english", ["the", "late", "und"]]),
        "token_pattern": st.sampled_from(
            [r"(?u)\b\w\w+\b", r"(?u)\b\w+\b", r"\w{1,}", r"[a-z]+", r"[^,.]+", r"(?u)\b(\w)\w+\b"]
        ),
        "analyzer": st.sampled_from(["word", "word", "word", "char", "char_wb"]),
        "binary": st.booleans(),
        "dtype": st.sampled_from([np.float64, np.float32]),
        "max_features": st.sampled_from([None, None, 5]),
    }
)
WEIGHTING = st.fixed_dictionaries(
    {
        "norm": st.sampled_from(["l1", "l2", None]),
        "use_idf": st.booleans(),
        "smooth_idf": st.booleans(),
        "sublinear_tf": st.booleans(),
    }
)
CLASSIFIERS: list[tuple[type, dict[str, Any]]] = [
    (LogisticRegression, {"max_iter": 20, "tol": 0.1}),
    (LogisticRegression, {"max_iter": 20, "tol": 0.1, "fit_intercept": False, "class_weight": "balanced"}),
    (LinearSVC, {"tol": 0.1}),
    (RidgeClassifier, {}),
    (Perceptron, {"random_state": 0}),
    (SGDClassifier, {"random_state": 0}),
    (SGDClassifier, {"loss": "log_loss", "random_state": 0}),
    (MultinomialNB, {}),
    (ComplementNB, {}),
    (ComplementNB, {"norm": True}),
]


def assert_same(estimator: Any, texts: list[str], rtol: float = 1e-9) -> None:
    """The plan's answer for the texts together, and for each alone, is the estimator's."""
    model = planned(estimator)
    assert isinstance(model.plan, TextPlan)
    wanted = getattr(estimator, model.method)(texts)
    np.testing.assert_allclose(model.plan(texts), wanted, rtol=rtol, atol=rtol)
    alone = np.concatenate([model.plan([each]) for each in texts])
    np.testing.assert_allclose(alone, wanted, rtol=rtol, atol=rtol)


@pytest.mark.filterwarnings("ignore")  # of training on next to nothing
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(ANY_TEXT, min_size=1, max_size=6),
    st.lists(ANY_TEXT, min_size=1, max_size=6),
    VECTORIZING,
    WEIGHTING,
    st.sampled_from(["tfidf", "count", "count and tfidf"]),
    st.sampled_from(CLASSIFIERS),
    st.booleans(),
    st.sampled_from([0, 128]),
)
def test_a_plan_answers_as_its_pipeline_whatever_its_settings(
    trained_on: list[str],
    asked: list[str],
    vectorizing: dict[str, Any],
    weighting: dict[str, Any],
    kind: str,
    classifier: tuple[type, dict[str, Any]],
    several: bool,
    few_keys: int,
) -> None:
    if kind == "tfidf":
        steps = [TfidfVectorizer(**vectorizing, **weighting)]
    elif kind == "count":
        steps = [CountVectorizer(**vectorizing)]
    else:
        steps = [CountVectorizer(**vectorizing), TfidfTransformer(**weighting)]
    final, options = classifier
    texts = TEXTS + trained_on
    kinds = [*KINDS, *(KINDS[at % 3] for at in range(len(trained_on)))]
    pipeline = make_pipeline(*steps, final(**options))
    try:
        pipeline.fit(texts, kinds if several else [each == "order" for each in kinds])
        pipeline.predict(asked)
    except ValueError:  # no term is left, or negative idf beside naive Bayes
        assume(False)
    with mock.patch.object(words, "_FEW_KEYS", few_keys):  # found by hash from here on
        assert_same(pipeline, TEXTS + asked, 1e-9 if vectorizing["dtype"] is np.float64 else 1e-5)


HASHING = VECTORIZING.map(lambda options: {name: value for name, value in options.items() if name != "max_features"})


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(ANY_TEXT, min_size=1, max_size=6),
    HASHING,
    st.sampled_from([7, 100, 2**12]),
    st.booleans(),
    st.sampled_from(["l1", "l2", None]),
    WEIGHTING,
    st.sampled_from(["hashes", "hashes and tfidf", "union"]),
)
def test_hashes_and_unions_have_a_plan_too(
    asked: list[str],
    hashing: dict[str, Any],
    width: int,
    signs: bool,
    norm: str | None,
    weighting: dict[str, Any],
    kind: str,
) -> None:
    weighting = weighting | {"smooth_idf": True}  # without, a column that no text had has an infinite one
    if kind == "hashes":
        front: Any = HashingVectorizer(n_features=width, alternate_sign=signs, norm=norm, **hashing)
    else:
        unweighed = HashingVectorizer(n_features=width, alternate_sign=False, norm=None, **hashing)
        front = make_pipeline(unweighed, TfidfTransformer(**weighting))
    if kind == "union":
        pieces = HashingVectorizer(n_features=50, analyzer="char_wb", ngram_range=(2, 4), norm=norm)
        parts = [("words", front), ("pieces", pieces), ("gone", "drop"), ("last", CountVectorizer())]
        front = FeatureUnion(parts, transformer_weights={"words": 0.5, "last": 3})
    pipeline = make_pipeline(front, LogisticRegression(max_iter=20, tol=0.1)).fit(TEXTS, KINDS)
    asked = [given for given in asked if given.isprintable()]  # half a surrogate has no hash
    assert_same(pipeline, TEXTS + asked, 1e-9 if hashing["dtype"] is np.float64 else 1e-5)


def test_what_is_remembered_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "MAX_REMEMBERED", 5)
    for analyzer in ("char_wb", "char", "word"):
        pipeline = make_pipeline(
            HashingVectorizer(n_features=500, analyzer=analyzer, ngram_range=(1, 2)), LogisticRegression()
        )
        assert_same(pipeline.fit(TEXTS, KINDS), TEXTS)


def test_a_text_that_cannot_be_hashed_fails_as_without_a_plan() -> None:
    pipeline = make_pipeline(HashingVectorizer(n_features=500, analyzer="char"), LogisticRegression()).fit(TEXTS, KINDS)
    with pytest.raises(UnicodeEncodeError):
        pipeline.predict(["half\ud800 a pair"])
    with pytest.raises(UnicodeEncodeError):
        answers(planned(pipeline), ["half\ud800 a pair"])


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(
    "front",
    [
        make_pipeline(HashingVectorizer(n_features=500), TfidfTransformer()),
        make_pipeline(TfidfVectorizer(), TfidfTransformer()),
        make_union(make_union(TfidfVectorizer()), CountVectorizer()),
        make_pipeline(
            HashingVectorizer(n_features=500, norm=None, alternate_sign=False), TfidfTransformer(smooth_idf=False)
        ),
    ],
    ids=["weighed twice", "tf-idf twice", "union in a union", "infinite idf"],
)
def test_fronts_that_are_not_one_weighing_have_no_plan(front: Any) -> None:
    assert served(make_pipeline(front, LogisticRegression()).fit(TEXTS, KINDS)).plan is None


def test_a_large_batch_is_answered_in_chunks() -> None:
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()).fit(TEXTS, KINDS)
    many = [f"{TEXTS[at % 6]} {TEXTS[at % 5]}" for at in range(2 * text.CHUNK_ITEMS + 3)]
    assert answers(planned(pipeline), many)["label"].tolist() == pipeline.predict(many).tolist()


@pytest.mark.parametrize(("few_answers", "copy_bytes"), [(32, 0), (0, 1 << 20), (32, 1 << 20)])
def test_coefficients_are_summed_up_the_same_way_copied_or_in_place(
    monkeypatch: pytest.MonkeyPatch, few_answers: int, copy_bytes: int
) -> None:
    monkeypatch.setattr(text, "FEW_ANSWERS", few_answers)
    monkeypatch.setattr(text, "MAX_COPY_BYTES", copy_bytes)
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()).fit(TEXTS, KINDS)
    model = planned(pipeline)
    assert isinstance(model.plan, TextPlan)
    asked = [*TEXTS, "", "nothing known", *TEXTS]
    np.testing.assert_allclose(model.plan(asked), pipeline.predict_proba(asked), rtol=1e-9)


def test_a_vocabulary_too_large_to_take_apart_is_looked_up_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MAX_TERMS", 3)
    assert_same(make_pipeline(CountVectorizer(ngram_range=(1, 2)), MultinomialNB()).fit(TEXTS, KINDS), [*TEXTS, ""])


def test_a_vocabulary_of_ones_own_may_hold_what_no_text_does() -> None:
    vocabulary = ["the", "The", "the parcel", "a", "", "parcel  came", "came late and", "é", "the\tparcel", "x y z w"]
    for options in ({}, {"stop_words": ["the", ""]}, {"token_pattern": r"(?u)\b\w+\b"}, {"token_pattern": r"[^,]+"}):
        vectorizer = TfidfVectorizer(vocabulary=vocabulary, ngram_range=(1, 2), lowercase=False, **options)
        pipeline = make_pipeline(vectorizer, LogisticRegression()).fit(TEXTS, KINDS)
        assert_same(pipeline, [*TEXTS, "a The é the", "the", "parcel", "the,parcel"])


def test_sequences_are_found_by_hash_also_where_two_share_a_slot() -> None:
    draw = np.random.default_rng(1)
    keys = np.unique(draw.integers(1, 2**40, 5000))
    level = words.Level(keys, np.arange(len(keys)))
    slots = level._slots_of(keys)
    assert len(np.unique(slots)) < len(keys), "some share one"
    asked = draw.permutation(np.concatenate([keys, keys + 1, draw.integers(0, 2**40, 5000)]))
    hits, places = level.found(asked)
    assert hits.tolist() == np.isin(asked, keys).nonzero()[0].tolist()
    assert (keys[places] == asked[hits]).all()


@pytest.mark.parametrize("narrow_bits", [0, 31])
def test_numbers_of_text_and_term_take_as_many_bits_as_they_need(
    monkeypatch: pytest.MonkeyPatch, narrow_bits: int
) -> None:
    monkeypatch.setattr(bags, "NARROW_BITS", narrow_bits)
    for vectorizer in (TfidfVectorizer(), HashingVectorizer(n_features=2**16)):
        assert_same(make_pipeline(vectorizer, LogisticRegression()).fit(TEXTS, KINDS), TEXTS * 40)


def test_searches_and_pipelines_within_pipelines_are_seen_through() -> None:
    inner = make_pipeline(CountVectorizer(), TfidfTransformer())
    nested = Pipeline([("text", inner), ("nothing", "passthrough"), ("last", LogisticRegression())])
    search = GridSearchCV(nested, {"last__C": [0.1, 1.0]}, cv=2).fit(TEXTS, KINDS)
    assert_same(search, TEXTS)


@pytest.mark.parametrize("each", [LogisticRegression(), LinearSVC(), RidgeClassifier()])
def test_one_classifier_for_each_class_is_one_product(each: Any) -> None:
    several = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]])
    for wanted in (KINDS, [kind == "order" for kind in KINDS], several):
        pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), OneVsRestClassifier(clone(each))).fit(
            TEXTS, wanted
        )
        assert_same(pipeline, [*TEXTS, "", "nothing known"])
        model = planned(pipeline)
        if wanted is several:
            applies = [json.loads(labels) for labels in answers(model, TEXTS)["labels"]]
            assert applies == [[str(at) for at in row.nonzero()[0]] for row in pipeline.predict(TEXTS)]
        else:
            assert answers(model, TEXTS)["label"].tolist() == [str(kind) for kind in pipeline.predict(TEXTS)]


@pytest.mark.filterwarnings("ignore:Label 2 is present")
def test_one_classifier_for_each_class_has_no_plan_when_one_of_them_is_another_kind() -> None:
    front = TfidfVectorizer()
    always = np.array([[1, 0, 1], [0, 1, 1]] * 3)
    for final in (OneVsRestClassifier(LogisticRegression()), OneVsRestClassifier(BernoulliNB())):
        assert served(make_pipeline(front, final).fit(TEXTS, always)).plan is None


def test_a_regression_of_texts_is_one_sum() -> None:
    numbers = np.arange(6.0)
    assert_same(make_pipeline(TfidfVectorizer(), Ridge()).fit(TEXTS, numbers), [*TEXTS, "", "new words"])
    assert_same(make_pipeline(TfidfVectorizer(), Ridge()).fit(TEXTS, np.column_stack([numbers, -numbers])), TEXTS)


class Subclass(TfidfVectorizer):
    """Adds nothing, and might."""


def _shout(given: str) -> str:
    return given.upper()


def _split(given: str) -> list[str]:
    return given.split("a")


@pytest.mark.filterwarnings("ignore:The parameter 'token_pattern'")
@pytest.mark.parametrize(
    "vectorizer",
    [
        Subclass(),
        TfidfVectorizer(analyzer=_split),
        TfidfVectorizer(tokenizer=_split),
        TfidfVectorizer(preprocessor=_shout, lowercase=False),
        TfidfVectorizer(strip_accents=_shout),
    ],
    ids=["subclass", "analyzer", "tokenizer", "preprocessor", "accents"],
)
def test_what_is_not_known_to_the_letter_has_no_plan_and_answers_itself(vectorizer: Any) -> None:
    pipeline = make_pipeline(vectorizer, LogisticRegression()).fit(TEXTS, KINDS)
    model = served(pipeline)
    assert model.plan is None
    assert answers(model, TEXTS)["label"].tolist() == pipeline.predict(TEXTS).tolist()


def test_a_method_replaced_on_the_object_has_no_plan() -> None:
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, KINDS)
    pipeline[0].build_preprocessor = lambda: str.upper
    assert served(pipeline).plan is None


def test_a_plan_that_answers_otherwise_is_dropped_with_a_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, KINDS)
    head = heads.head_of(pipeline[-1], "predict_proba")
    assert head is not None
    monkeypatch.setattr(text, "head_of", lambda *_: dataclasses.replace(head, weights=head.weights * (1 + 1e-7)))
    assert served(pipeline).plan is None
    assert "answers otherwise than predict_proba()" in caplog.text


def test_outputs_are_those_without_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    for final in (LogisticRegression(), LinearSVC(), MultinomialNB()):
        pipeline = make_pipeline(TfidfVectorizer(), final).fit(TEXTS, KINDS)
        metadata = json.loads('{"labels": ["c", "o", "q"], "sample_input": ["the invoice"]}')
        model = planned(pipeline, metadata=metadata)
        with_plan = answers(model, TEXTS)
        monkeypatch.setattr(model, "plan", None)
        without = answers(model, TEXTS)
        assert with_plan.keys() == without.keys()
        for name in without:
            assert with_plan[name].dtype == without[name].dtype
            if name == "label":
                assert with_plan[name].tolist() == without[name].tolist()
            else:
                np.testing.assert_allclose(with_plan[name], without[name], rtol=1e-6)
