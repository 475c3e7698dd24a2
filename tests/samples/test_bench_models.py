"""The models that benchmarks load; the large ones are left to the benchmark itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from loaderd.catalogue import detect
from samples.making import PROJECT_DIR

MAKE = "import sys; from pathlib import Path; from samples import bench_models as bench; store = Path(sys.argv[1])"


def test_the_small_ones_are_complete_and_of_their_framework(tmp_path: Path) -> None:
    program = f"{MAKE}; bench.make_tfidf(store); bench.make_minilm(store)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=PROJECT_DIR, check=True)
    found = {}
    for metadata in sorted(tmp_path.glob("*/*/metadata.json")):
        config = json.loads((metadata.parent / "config.json").read_text())
        files = [str(path.relative_to(metadata.parent)) for path in metadata.parent.rglob("*") if path.is_file()]
        detected = detect(files, config)
        assert detected is not None
        assert detected[0].name == json.loads(metadata.read_text())["framework"]
        found[f"{metadata.parent.parent.name}/{metadata.parent.name}"] = detected[1].name
    assert found == {
        "embedding/bench-minilm-v1.0": "safetensors",
        "other/bench-tfidf-joblib-v1.0": "joblib",
        "other/bench-tfidf-v1.0": "skops",
    }
