"""Run as a program: a second process that loads models again, with two threads, and asks the canaries recorded before.

Arguments: framework, then a JSON file of [case name, directory, recorded canary]. Prints one JSON object: case name ->
{"reason": what differs, "recorded": the canary as this process would have recorded it}.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from loaderd import catalogue
from loaderd.errors import CanaryFailed
from loaderd.worker.canary import Canary
from tests.contract.cases import CASES, artifact_of, spec_of


def main() -> None:
    name, listing = sys.argv[1:]
    framework = catalogue.framework(name)
    framework.import_library()
    cases = {case.name: case for case in CASES}
    told: dict[str, Any] = {}
    for case_name, directory, canary in json.loads(Path(listing).read_text()):
        artifact = dataclasses.replace(artifact_of(cases[case_name], Path(directory)), threads=2)
        model = framework.load(artifact, lambda share: None)
        model.warm_up()
        reason = ""
        try:
            Canary(spec_of(cases[case_name], canary), model).at_load()
        except CanaryFailed as failed:
            reason = failed.message
        told[case_name] = {"reason": reason, "recorded": Canary(spec_of(cases[case_name]), model).at_load()["recorded"]}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
