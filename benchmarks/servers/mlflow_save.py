"""Writes the models as MLflow wants them. usage: mlflow_save.py MODELS OUT"""

import sys
from pathlib import Path

import joblib
import mlflow.sklearn
import mlflow.transformers
from transformers import pipeline

models, out = Path(sys.argv[1]), Path(sys.argv[2])
for name in ("text", "digits"):
    mlflow.sklearn.save_model(
        joblib.load(models / f"{name}.joblib"),
        str(out / name),
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )
pipe = pipeline("text-classification", model=str(models / "minilm"), device="cpu")
mlflow.transformers.save_model(pipe, str(out / "minilm"), pip_requirements=["transformers"])
