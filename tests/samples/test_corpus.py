"""The corpus is what its README says."""

from __future__ import annotations

from collections import Counter

import pytest

from samples.emails import LABELS, Email, corpus_digest, examples, read_emails, split_of
from samples.near_duplicates import near_duplicates


@pytest.fixture(scope="module")
def emails() -> list[Email]:
    return read_emails()


def test_there_are_many_distinct_emails(emails: list[Email]) -> None:
    assert len(emails) >= 600
    assert len({email.id for email in emails}) == len(emails)
    assert len({email.text for email in emails}) == len(emails)


def test_every_email_has_a_subject_and_a_body(emails: list[Email]) -> None:
    for email in emails:
        subject, body = email.text.split("\n\n")
        assert subject.strip() == subject != "", email.id
        assert 20 < len(body) < 600, email.id
        assert "\n" not in body, email.id


@pytest.mark.parametrize("task", LABELS)
def test_every_label_is_known_and_frequent_on_both_sides(emails: list[Email], task: str) -> None:
    assert {email.label(task) for email in emails} == set(LABELS[task])
    for side, least in (("train", 90), ("test", 15)):
        counts = Counter(email.label(task) for email in emails if email.split == side)
        assert min(counts[name] for name in LABELS[task]) >= least, (side, counts)


def test_topics_and_intents_are_balanced_so_that_one_does_not_tell_the_other(emails: list[Email]) -> None:
    pairs = Counter((email.topic, email.intent) for email in emails)
    assert set(pairs.values()) == {26}


def test_requests_questions_and_information_come_in_every_tone(emails: list[Email]) -> None:
    seen = {(email.intent, email.sentiment) for email in emails}
    assert all(
        (intent, tone) in seen for intent in ("request", "question", "information") for tone in LABELS["sentiment"]
    )


def test_the_split_follows_its_rule(emails: list[Email]) -> None:
    assert all(email.split == split_of(email.id) for email in emails)
    assert 0.15 < sum(email.split == "test" for email in emails) / len(emails) < 0.25


def test_no_email_is_nearly_another(emails: list[Email]) -> None:
    assert [(first.id, second.id) for first, second, *_ in near_duplicates(emails)] == []


def test_the_check_for_near_duplicates_finds_a_reworded_copy(emails: list[Email]) -> None:
    words = emails[0].text.split(" ")
    copy = Email("copy", " ".join(["Hello,", *words[:-3], "at", "once."]), "neutral", "billing", "request", "test")
    assert [(first.id, second.id) for first, second, *_ in near_duplicates([*emails, copy])] == [(emails[0].id, "copy")]


def test_examples_of_a_side_come_with_class_numbers() -> None:
    held_out = examples("sentiment", "test")
    assert len(held_out.texts) == len(held_out.classes)
    assert set(held_out.classes) == {0, 1, 2}
    by_text = {email.text: email for email in read_emails()}
    assert [by_text[text].sentiment for text in held_out.one_of_each()] == ["negative", "neutral", "positive"]


def test_the_digest_names_exactly_these_bytes() -> None:
    assert len(corpus_digest()) == 64
