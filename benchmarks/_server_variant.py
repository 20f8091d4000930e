"""Starts ``heliograph`` with one part replaced: what a benchmark compares the real one with.

Usage: python benchmarks/_server_variant.py VARIANT dev --json …

asgi        the second WebSocket adapter, under uvicorn with `websockets`
write_each  every frame is written by a system call of its own as soon as it is queued, as a server
            does that calls ``send`` for each message
decode_each every client that catches up decodes and encodes what it reads from the ring for itself
"""

import os
import sys

import uvicorn

from heliograph.cli import composition
from heliograph.cli.main import main
from heliograph.server.app import build_app
from heliograph.server.delivery.lane_item import DispatchedTransaction
from heliograph.server.delivery.shared_rows import SharedRows
from heliograph.server.outbound import Outbound
from heliograph.server.picows_websocket import PicowsTransport
from heliograph.server.uvicorn_server import BoundAddress, bind_socket


class _Uvicorn(uvicorn.Server):
    def __init__(self, config, on_started):
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self._on_started()


async def _serve_by_asgi(parts, listen, *, on_ready, **_options):
    bound = bind_socket(listen)
    config = uvicorn.Config(
        build_app(parts),
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    address = BoundAddress(listen.host, bound.getsockname()[1])
    await _Uvicorn(config, lambda: on_ready(address)).serve(sockets=[bound])


def use_asgi():
    composition.serve = _serve_by_asgi


def use_write_each():
    numbers = {}

    def queue_and_write(self, size, pieces):
        self._pieces += pieces
        self._staged_bytes += size
        self._traffic.frames_sent += 1
        self.flush()

    def write(self, frame):
        transport = self._transport
        if self._websocket.is_close_frame_sent or transport.is_closing():
            return transport.get_write_buffer_size()
        if not transport.get_write_buffer_size():
            number = numbers.get(transport)
            if number is None:
                number = numbers[transport] = transport.get_extra_info("socket").fileno()
            try:
                written = os.write(number, frame)
            except BlockingIOError:
                written = 0
            if written == len(frame):
                return 0
            frame = frame[written:]
        transport.write(frame)
        return transport.get_write_buffer_size()

    def offer_and_write(self, frames, ids, data):
        if not self.has_room():
            return False
        self.send_change(frames, ids, data)
        return True

    Outbound._queue = queue_and_write  # noqa: SLF001 - the part that is replaced
    Outbound.offer_change = offer_and_write
    PicowsTransport.write = write


def use_decode_each():
    def get(_shared, transaction, wanted):
        return DispatchedTransaction(transaction), transaction.decode(wanted)

    SharedRows.get = get


if __name__ == "__main__":
    {
        "asgi": use_asgi,
        "write_each": use_write_each,
        "decode_each": use_decode_each,
    }[sys.argv.pop(1)]()
    main()
