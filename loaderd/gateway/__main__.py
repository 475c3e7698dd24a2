"""`python -m loaderd.gateway`: started by the supervisor, ends with it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Awaitable

import uvloop

from loaderd.errors import LoaderdError
from loaderd.gateway.access import Access
from loaderd.gateway.app import Front, Gateway, Room
from loaderd.gateway.grpc import Door, start, start_when_free
from loaderd.gateway.http.listener import Listener, tcp_listener
from loaderd.gateway.links import Links
from loaderd.gateway.oip import Internal, OpenInference
from loaderd.gateway.openai.room import OpenAI
from loaderd.gateway.supervisor import Supervisor
from loaderd.lifeline import die_with_parent
from loaderd.wire import private_listener

log = logging.getLogger(__name__)

EXIT_CANNOT_LISTEN = 3


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if arguments.supervisor_pid:
        die_with_parent(arguments.supervisor_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the supervisor decides
    channel = socket.socket(fileno=arguments.channel_fd)
    channel.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_serve(arguments, channel)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loaderd.gateway", description=__doc__)
    parser.add_argument("--channel-fd", type=int, required=True, help="socket to the supervisor")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True, help="0: any free one")
    parser.add_argument("--share-port", action="store_true", help="other gateways listen on the port as well")
    parser.add_argument("--join", action="store_true", help="one of them does already")
    parser.add_argument("--grpc-host", default="", help="left out: as --host")
    parser.add_argument("--grpc-port", type=int, help="left out: no gRPC; 0: any free one")
    parser.add_argument("--unix-socket", required=True, help="path of the private door")
    parser.add_argument("--predict-timeout", type=float, required=True, help="seconds")
    parser.add_argument("--report-interval", type=float, default=2.0, help="seconds between reports of what was seen")
    parser.add_argument("--supervisor-pid", type=int, default=0, help="end with this parent; 0: with the channel only")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace, channel: socket.socket) -> int:
    links, access = Links(), Access()
    supervisor = Supervisor(access, links)
    gateway = Gateway(access, links, supervisor, arguments.predict_timeout, arguments.share_port)
    await supervisor.connect(channel)
    try:
        tcp = tcp_listener(arguments.host, arguments.port, is_shared=arguments.share_port, joins=arguments.join)
        private = private_listener(arguments.unix_socket)
    except (LoaderdError, OSError) as error:
        reason = error if isinstance(error, LoaderdError) else LoaderdError(f"{arguments.unix_socket}: {error}")
        log.error("%s", reason)
        supervisor.send({"event": "failed", "error": reason.to_message()})
        return EXIT_CANNOT_LISTEN
    port = tcp.getsockname()[1]
    rooms: dict[str, Room] = {"v2": OpenInference(gateway.predictor), "v1": OpenAI(gateway.predictor)}
    public_door = Front(gateway, rooms, private=False)
    private_door = Front(gateway, {**rooms, "internal": Internal(gateway.predictor)}, private=True)
    listeners = [Listener(public_door.begin, tcp), Listener(private_door.begin, private)]
    for listener in listeners:
        await listener.start()
    supervisor.send({"event": "listening", "port": port})
    opening = asyncio.ensure_future(_open_grpc(arguments, gateway)) if arguments.grpc_port is not None else None
    exporting = asyncio.ensure_future(gateway.predictor.observer.open())

    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    told_to_end = asyncio.ensure_future(terminated.wait())
    supervisor_gone = asyncio.ensure_future(supervisor.listen())
    reporting = asyncio.ensure_future(gateway.report_every(arguments.report_interval))
    await asyncio.wait({told_to_end, supervisor_gone}, return_when=asyncio.FIRST_COMPLETED)
    reporting.cancel()
    if supervisor_gone.done():
        return 0  # the models end with the supervisor: there is nothing to wait for
    await asyncio.gather(*(listener.stop() for listener in listeners), _close_grpc(opening))
    gateway.report()
    exporting.cancel()
    gateway.predictor.observer.close()
    return 0


async def _open_grpc(arguments: argparse.Namespace, gateway: Gateway) -> Door:
    def begin(is_again: bool) -> Awaitable[Door]:
        return start(
            arguments.grpc_host or arguments.host,
            arguments.grpc_port,
            gateway.predictor,
            gateway.access,
            budget=gateway.budget,
            is_shared=arguments.share_port,
            joins=arguments.join or is_again,
        )

    door = await start_when_free(begin, gateway.supervisor.send)
    gateway.doors["grpc"] = door.counts
    return door


async def _close_grpc(opening: asyncio.Future[Door] | None) -> None:
    if opening is None or opening.cancel():
        return
    if opening.exception() is None:
        await opening.result().stop()


if __name__ == "__main__":
    main()
