"""`make endurance`: what takes minutes to show, over the real product.

Prints a table and writes it as JSON to <MODELHUB_STATE_DIR>/endurance.json.

Exit status 1 when a promise is broken. `ARGS="--only failures,budget --minutes 1"` runs a part.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.endurance.budget import budget
from tests.endurance.cycles import cycles
from tests.endurance.failures import Failures
from tests.endurance.figures import Finding
from tests.endurance.promises import promises
from tests.endurance.switches import switches
from tests.stack import Stack

PARTS = ("promises", "switches", "cycles", "failures", "budget")
FOREST = "bench-forest-v1.0"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(PARTS), help="Parts, comma-separated.")
    parser.add_argument("--minutes", type=float, default=5.0, help="Of the budget's part.")
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--switches", type=int, default=50)
    parser.add_argument("--store", type=Path, help="Folder with the models, made when it is empty; kept.")
    options = parser.parse_args()
    console = Console()
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="mh") as folder:
        Path(folder).chmod(0o755)
        store = Path(folder) / "store"
        made = options.store or Path(folder) / "made"
        made.mkdir(exist_ok=True)
        if not any(made.iterdir()):
            console.print("making the models")
            make_store(made)
        shutil.copytree(made, store)
        stack = Stack(Path(folder) / "var", store)
        try:
            stack.start()
            stack.wait_for_zygotes()
            for path in sorted(store.glob("*/bench-forest*")):
                stack.manage("approve", path.name, "--user", "ada")
            parts: dict[str, Callable[[], list[Finding]]] = {
                "promises": lambda: promises(stack, [FOREST, "bench-minilm-v1.0", "topic-keras-v1.0"]),
                "switches": lambda: switches(stack, options.switches),
                "cycles": lambda: cycles(stack, options.cycles),
                "failures": lambda: _failures(stack),
                "budget": lambda: budget(stack, options.minutes, crowd(stack)),
            }
            for name in options.only.split(","):
                console.print(f"[bold]{name}")
                for finding in parts[name]():
                    findings.append(finding)
                    console.print(f"  {finding.what}: {finding.value}", markup=False)
        finally:
            if stack.process is not None:
                stack.end()
    table = Table("what", "seen", "promise", "kept", title="endurance")
    for finding in findings:
        kept = "" if finding.kept is None else ("yes" if finding.kept else "NO")
        table.add_row(finding.what, finding.value, finding.promise, kept)
    console.print(table)
    from modelhub.conf import config

    report = config().MODELHUB_STATE_DIR / "endurance.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps([asdict(finding) for finding in findings], indent=2))
    console.print(f"written to {report}")
    return 1 if any(finding.kept is False for finding in findings) else 0


def _failures(stack: Stack) -> list[Finding]:
    with stack.api() as api:
        return Failures(stack, api).run()


def crowd(stack: Stack) -> list[str]:
    """Twelve models of three frameworks and all sizes: together more than the budget."""
    with stack.api() as api:
        ids = {model["id"] for model in api.get("/api/models/").json()}
    large = sorted(model_id for model_id in ids if model_id.startswith(("bench-forest", "bench-minilm")))
    small = ["sentiment-sklearn-v1.0", "topic-sklearn-v1.0", "sentiment-bert-v1.0", "intent-bert-v1.0",
             "topic-keras-v1.0", "intent-sklearn-v1.0"]  # fmt: skip
    assert len(large) + len(small) == 12, (large, small)
    return [*large, *small]


def make_store(folder: Path) -> None:
    """The sample models, the benchmarks' models, and copies of the large ones."""
    samples = [sys.executable, "manage.py", "demo_models"]
    from tests import environment

    subprocess.run(samples, check=True, env=environment.for_child(MODELS_DIR=str(folder)))
    subprocess.run([sys.executable, "-m", "samples.bench_models", str(folder)], check=True)
    for original, count in (("other/bench-forest-v1.0", 2), ("embedding/bench-minilm-v1.0", 2)):
        source = folder / original
        for number in range(2, 2 + count):
            copy = source.with_name(source.name.replace("v1.0", f"v{number}.0"))
            shutil.copytree(source, copy)
            metadata = copy / "metadata.json"
            text = json.loads(metadata.read_text())
            text["version"] = f"{number}.0.0"
            metadata.write_text(json.dumps(text))


if __name__ == "__main__":
    sys.exit(main())
