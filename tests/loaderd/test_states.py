from loaderd.states import TRANSITIONS, ModelState, sources_of


def test_every_state_is_in_the_table_and_error_is_reachable_from_all_others() -> None:
    assert set(TRANSITIONS) == set(ModelState)
    assert sources_of(ModelState.ERROR) == set(ModelState) - {ModelState.ERROR}


def test_loaded_is_reached_only_through_loading() -> None:
    assert sources_of(ModelState.LOADED) == {ModelState.LOADING}
    assert sources_of(ModelState.UNLOADING) == {ModelState.LOADED}
