import pytest

from loaderd import errors
from loaderd.errors import LoaderdError, from_message


@pytest.mark.parametrize("cls", errors._all_classes(LoaderdError))
def test_an_error_crosses_processes_with_its_class_and_facts(cls: type[LoaderdError]) -> None:
    error = cls("it failed", model_id="m", bytes_needed=1)
    again = from_message(error.to_message())
    assert (type(again), str(again), again.facts) == (cls, "it failed", error.facts)


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in errors._all_classes(LoaderdError)]
    assert len(codes) == len(set(codes))


def test_an_unknown_code_is_still_an_error_with_its_message() -> None:
    error = from_message({"code": "from_the_future", "message": "it failed"})
    assert (type(error), str(error)) == (LoaderdError, "it failed")
