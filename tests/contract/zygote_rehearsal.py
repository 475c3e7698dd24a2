"""Run as a program: imports a framework as a zygote does, forks, and lets each child load and predict.

Arguments: framework, then a JSON file of [case name, directory]. Prints one JSON object.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

FORKS = 5
CHILD_SECONDS = 40


def main() -> None:
    name, listing = sys.argv[1:]
    from loaderd import catalogue
    from tests.contract.cases import CASES, artifact_of, batch

    framework = catalogue.framework(name)
    framework.import_library()
    gc.collect()
    gc.freeze()
    told: dict[str, Any] = {"threads": len(os.listdir("/proc/self/task")), "children": []}
    cases = {case.name: case for case in CASES}
    for case_name, directory in json.loads(Path(listing).read_text()):
        for _ in range(FORKS):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                signal.alarm(CHILD_SECONDS)
                try:
                    case, before, started = cases[case_name], set(sys.modules), time.perf_counter()
                    model = framework.load(artifact_of(case, Path(directory)), lambda share: None)
                    model.warm_up()
                    seconds = time.perf_counter() - started
                    outputs = model.predict(batch(case.items[:3], model.signature))
                    answer = {
                        "case": case_name,
                        "seconds": seconds,
                        "outputs": {key: [str(value) for value in values] for key, values in outputs.items()},
                        "imported": sorted(set(sys.modules) - before),
                    }
                except BaseException:
                    answer = {"case": case_name, "failed": traceback.format_exc()}
                os.write(writer, json.dumps(answer).encode()[:60_000])
                os._exit(0)
            os.close(writer)
            with os.fdopen(reader) as pipe:
                text = pipe.read()
            _, status = os.waitpid(child, 0)
            told["children"].append(json.loads(text) if text else {"case": case_name, "failed": f"status {status}"})
    print(json.dumps(told))


if __name__ == "__main__":
    main()
