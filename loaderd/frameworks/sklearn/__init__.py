"""scikit-learn estimators and pipelines, from skops, joblib and pickle files."""

from loaderd.frameworks.sklearn.framework import SklearnFramework

__all__ = ["SklearnFramework"]
