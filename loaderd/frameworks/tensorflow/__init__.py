"""TensorFlow models, from keras archives and SavedModels."""

from loaderd.frameworks.tensorflow.framework import TensorflowFramework

__all__ = ["TensorflowFramework"]
