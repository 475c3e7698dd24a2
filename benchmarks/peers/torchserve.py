from __future__ import annotations

import json
import shutil
import subprocess

from benchmarks.peers.base import CommandPeer

_LOGGING = (
    '<Configuration><Appenders><Console name="c"/></Appenders><Loggers><Root level="warn">'
    '<AppenderRef ref="c"/></Root></Loggers></Configuration>'
)


class TorchServe(CommandPeer):
    kind = "torchserve"
    title = "TorchServe"
    environment = "torchserve"
    packages = ("torchserve",)
    settings = {
        "": "2 workers a model, token auth off, log level warn",
        "batch": "`batchSize` 32, `maxBatchDelay` 5 ms",
    }

    def why_not(self) -> str | None:
        java = shutil.which("java")
        if java is None:
            return "TorchServe needs Java 17 (Debian: apt-get install openjdk-17-jre-headless)."
        done = subprocess.run([java, "-version"], capture_output=True, text=True)
        version = done.stderr.partition('"')[2].partition('"')[0]
        if not version.partition(".")[0].isdigit() or int(version.partition(".")[0]) < 11:
            return f"TorchServe needs Java 17; `java -version` says {version or done.stderr[:80]!r}."
        return None

    def layouts(self) -> tuple[str, ...]:
        return ("torchserve",)

    def command(self, names: list[str]) -> list[str]:
        is_batching = self.variant == "batch"
        described = {
            name: {
                "1.0": {
                    "defaultVersion": True,
                    "marName": f"{name}.mar",
                    "minWorkers": 2,
                    "maxWorkers": 2,
                    "batchSize": 32 if is_batching else 1,
                    "maxBatchDelay": 5 if is_batching else 100,
                    "responseTimeout": 120,
                }
            }
            for name in names
        }
        properties = {
            "inference_address": f"http://127.0.0.1:{self.ports[0]}",
            "management_address": f"http://127.0.0.1:{self.ports[1]}",
            "metrics_address": f"http://127.0.0.1:{self.ports[2]}",
            "grpc_inference_port": self.ports[3],
            "grpc_management_port": self.ports[4],
            "default_workers_per_model": 2,
            "job_queue_size": 1000,
            "model_store": self.layout("torchserve"),
            "disable_system_metrics": "true",
            "models": json.dumps(described),
            "load_models": ",".join(f"{name}.mar" for name in names),
        }
        config = self.folder / "config.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        logging = self.folder / "log4j2.xml"
        logging.write_text(_LOGGING)
        return [self.program("torchserve"), "--start", "--foreground", "--ncs", "--disable-token-auth",
                "--enable-model-api", "--ts-config", str(config), "--log-config", str(logging)]  # fmt: skip

    def ready_path(self, name: str) -> str:
        return "/ping"

    def path(self, name: str) -> str:
        return f"/predictions/{name}"
