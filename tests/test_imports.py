"""Import rules 1 to 3, proven on the running interpreter: import-linter sees only what is written down."""

from __future__ import annotations

import subprocess
import sys

from modelhub.conf import PROJECT_DIR
from tests.environment import for_child

CODE = """
import importlib, pkgutil, sys
{setup}
for name in {packages}:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
        if not module.name.endswith("__main__") and not module.name.startswith({skipped}):
            importlib.import_module(module.name)
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
"""
DJANGO = "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'modelhub.settings'; django.setup()"
MODEL_LIBRARIES = {"torch", "tensorflow", "keras", "transformers", "sklearn", "joblib", "skops"}


def imported_by(*packages: str, setup: str = "", skipped: tuple[str, ...] = (), **env: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", CODE.format(setup=setup, packages=packages, skipped=skipped)],
        cwd=PROJECT_DIR,
        env=for_child(**env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


def test_no_module_of_loaderd_imports_django_a_database_or_modelhub() -> None:
    assert not imported_by("loaderd") & {"django", "psycopg", "modelhub"}


def test_naming_a_framework_imports_no_library() -> None:
    name_all = "from loaderd import catalogue\nfor name in catalogue.entries(): catalogue.framework(name)"
    assert not imported_by("loaderd.worker", "loaderd.zygote", setup=name_all) & MODEL_LIBRARIES


def test_modelhub_imports_no_model_library(tmp_path) -> None:
    imported = imported_by(
        "modelhub",
        setup=DJANGO,
        skipped=("modelhub.launch.gunicorn_config",),
        MODELHUB_STATE_DIR=str(tmp_path),
        DATABASE_URL="postgres://nobody@localhost/never_asked",
    )
    assert not imported & MODEL_LIBRARIES
