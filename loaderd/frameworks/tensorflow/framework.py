"""TensorFlow as loaderd knows it."""

from __future__ import annotations

import logging
import os

from loaderd.errors import ArtifactRefused
from loaderd.frameworks.base import Artifact, Framework, LoadedModel, ReportProgress
from loaderd.frameworks.files import refuse_unlisted, require_approval, root_file
from loaderd.frameworks.precision import refuse_precision

log = logging.getLogger(__name__)

ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # else the first model takes all of a GPU's memory
}


class TensorflowFramework(Framework):
    name = "tensorflow"

    def import_library(self) -> None:
        os.environ.update(ENVIRONMENT)
        import encodings.cp437  # of zip archives, which is what .keras files are

        import keras
        import tensorflow

        import loaderd.frameworks.tensorflow.keras_archive
        import loaderd.frameworks.tensorflow.saved_model

        del encodings, keras, tensorflow, loaderd

    def load(self, artifact: Artifact, report: ReportProgress) -> LoadedModel:
        refuse_precision(artifact, "TensorFlow models")
        if artifact.format == "h5":
            raise ArtifactRefused(
                f"{artifact.model_id} is a Keras .h5 file, which can hide code and is never loaded; convert it where "
                "you trust it: keras.saving.load_model('model.h5').save('model.keras')",
                model_id=artifact.model_id,
            )
        if artifact.format != "keras":  # whatever it is called, it would be read as a SavedModel
            require_approval(artifact, "is a TensorFlow SavedModel, whose graph can run code")
        from loaderd.frameworks.tensorflow.keras_archive import load_archive
        from loaderd.frameworks.tensorflow.saved_model import load_saved_model

        _limit_threads(artifact.threads)
        if artifact.format == "keras":
            return load_archive(root_file(artifact, ".keras"), artifact, report)
        refuse_unlisted(artifact)
        return load_saved_model(artifact, report)


def _limit_threads(threads: int) -> None:
    """Only the first model of a process can set them; a model process holds one."""
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        log.debug("threads stay as they are: %s", error)
