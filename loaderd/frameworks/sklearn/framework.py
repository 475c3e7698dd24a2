"""scikit-learn as loaderd knows it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from loaderd.frameworks.base import Artifact, Framework, LoadedModel, ReportProgress
from loaderd.frameworks.precision import refuse_precision


@contextlib.contextmanager
def _not_importable(name: str) -> Iterator[None]:
    """Makes `import name` fail meanwhile, unless it was imported before.

    all_estimators() (skops calls it too) walks over sklearn's bridges to other array libraries, and that to
    torch imports the whole of it: 180 MB more to copy at each fork.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how the import system is told so
    try:
        yield
    finally:
        del sys.modules[name]


class SklearnFramework(Framework):
    name = "sklearn"

    def import_library(self) -> None:
        import encodings.cp437  # of zip archives, which is what skops files are

        import narwhals.stable.v2.dependencies as narwhals
        from sklearn.utils import all_estimators

        with _not_importable("torch"):
            import loaderd.frameworks.sklearn.reading

            # A pipeline may name any of them; importing one takes longer than loading most models.
            all_estimators()
        from loaderd.frameworks.sklearn.estimator import thread_pools

        # Both look around on their first call, 15 ms each, and remember.
        narwhals.is_into_dataframe([])
        thread_pools()
        del encodings, loaderd

    def load(self, artifact: Artifact, report: ReportProgress) -> LoadedModel:
        refuse_precision(artifact, "scikit-learn models")
        from loaderd.frameworks.sklearn.estimator import model_for
        from loaderd.frameworks.sklearn.reading import read

        estimator = read(artifact)
        report(0.9)
        return model_for(estimator, artifact)
