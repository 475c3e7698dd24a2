"""Run as a program: loads models through a real zygote and the real worker, and tells what each load took.

Arguments: framework, then a JSON file of specs. Prints one JSON object: model_id -> {"peak_bytes"} or {"failed"}.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from loaderd import lifeline, protocol
from loaderd.protocol import ModelSpec
from loaderd.resources import load_peak_of
from loaderd.supervisor.environment import clean_environment
from loaderd.zygote import MAX_PACKET_BYTES

ANSWER_SECONDS = 60


def main() -> None:
    framework, listing = sys.argv[1:]
    lifeline.become_subreaper()  # as the supervisor: the zygote's children become ours
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "loaderd.zygote", "--framework", framework]
    command += ["--link-fd", str(theirs.fileno()), "--supervisor-pid", str(os.getpid())]
    zygote = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=clean_environment(), stdout=sys.stderr)
    theirs.close()
    ours.settimeout(ANSWER_SECONDS)
    assert json.loads(ours.recv(MAX_PACKET_BYTES))["event"] == "ready"
    specs = [ModelSpec.from_message(message) for message in json.loads(Path(listing).read_text())]
    print(json.dumps({spec.model_id: measured(spec, ours) for spec in specs}))
    ours.close()
    zygote.kill()
    zygote.wait()


def measured(spec: ModelSpec, zygote: socket.socket) -> dict[str, Any]:
    channel, theirs = socket.socketpair()
    channel.settimeout(ANSWER_SECONDS)
    data_socket = f"{spec.directory}.sock"
    protocol.send(channel, spec.to_message())
    request = json.dumps({"id": 1, "data_socket": data_socket}).encode()
    socket.send_fds(zygote, [request], [theirs.fileno(), sys.stderr.fileno()])
    theirs.close()
    pid = json.loads(zygote.recv(MAX_PACKET_BYTES))["pid"]
    try:
        while (message := protocol.receive(channel)) is not None and message["event"] not in ("ready", "failed"):
            pass
        if message is None or message["event"] == "failed":
            return {"failed": message}
        return {"peak_bytes": load_peak_of(pid)}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        channel.close()
        Path(data_socket).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
