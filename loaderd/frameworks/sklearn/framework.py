"""scikit-learn as loaderd knows it."""

from __future__ import annotations

from loaderd.frameworks.base import Artifact, Framework, LoadedModel, ReportProgress


class SklearnFramework(Framework):
    name = "sklearn"

    def import_library(self) -> None:
        import encodings.cp437  # of zip archives, which is what skops files are

        import narwhals.stable.v2.dependencies as narwhals
        from sklearn.utils import all_estimators

        import loaderd.frameworks.sklearn.reading
        from loaderd.frameworks.sklearn.estimator import thread_pools

        # A pipeline may name any of them; importing one takes longer than loading most models.
        all_estimators()
        # Both look around on their first call, 15 ms each, and remember.
        narwhals.is_into_dataframe([])
        thread_pools()
        del encodings, loaderd

    def load(self, artifact: Artifact, report: ReportProgress) -> LoadedModel:
        from loaderd.frameworks.sklearn.estimator import model_for
        from loaderd.frameworks.sklearn.reading import read

        estimator = read(artifact)
        report(0.9)
        return model_for(estimator, artifact)
