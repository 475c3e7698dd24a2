"""What only a first start does."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth import authenticate, get_user_model

from modelhub.conf import Config
from modelhub.launch import first_start


@pytest.mark.django_db
class TestFirstAdmin:
    def test_it_gets_a_random_password_that_is_told_once(self) -> None:
        line = first_start.make_first_admin(Config())
        assert line is not None
        password = line.split("password: ")[1].split()[0]
        assert authenticate(username="admin", password=password) is not None
        assert first_start.make_first_admin(Config()) is None

    def test_it_takes_name_and_password_of_the_settings_and_does_not_print_it(self) -> None:
        line = first_start.make_first_admin(
            Config(DJANGO_SUPERUSER_USERNAME="ada", DJANGO_SUPERUSER_PASSWORD="lovelace-1843")
        )
        assert line is not None
        assert "lovelace" not in line
        user = authenticate(username="ada", password="lovelace-1843")
        assert user is not None
        assert user.is_superuser

    def test_an_ordinary_user_of_that_name_is_not_promoted(self) -> None:
        get_user_model().objects.create_user("admin", password="x")
        line = first_start.make_first_admin(Config())
        assert line is not None
        assert "createsuperuser" in line
        assert not get_user_model().objects.filter(is_superuser=True).exists()


class TestSampleModels:
    def test_an_empty_store_wants_them(self, tmp_path: Path) -> None:
        (tmp_path / "README.md").write_text("")
        (tmp_path / "sentiment").mkdir()
        assert first_start.wants_sample_models(Config(MODELS_DIR=tmp_path))
        assert not first_start.wants_sample_models(Config(MODELS_DIR=tmp_path, SAMPLE_MODELS=False))

    def test_a_store_with_a_model_does_not(self, tmp_path: Path) -> None:
        (tmp_path / "sentiment" / "mine-v1").mkdir(parents=True)
        assert not first_start.wants_sample_models(Config(MODELS_DIR=tmp_path))
