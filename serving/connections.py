"""The workers of a service share one socket: which of them takes a new connection."""

import asyncio
import socket

import uvicorn

from serving.repair import logger, repair

FEW = 48  # connections of one worker; a crowd spreads by itself, and is refused at once where it is too large


@repair({"uvicorn:Server": ["await self.lifespan.startup()", "for sock in sockets:", "self.servers"]})
def spread_connections() -> None:
    """Let a worker take connections one at a time, and pause while it has few, so that the others wake and take theirs.

    Without it: the worker that wakes first takes what has arrived, and keep-alive connections stay with it. Of 32 clients
    that came at once one of two workers got all in 5 of 12 tries on a busy machine: half the throughput. A socket for
    each worker (SO_REUSEPORT) would spread them as well, but one that hangs would keep its part waiting.
    Seen in: uvicorn 0.54.0, uvloop 0.23.0. Can go when: uvicorn spreads connections over the workers of a socket.
    """
    startup = uvicorn.Server.startup

    async def start_taking_turns(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        if server.config.is_ssl:  # a caller who never answers the handshake would keep all others waiting
            return await startup(server, sockets)
        await startup(server, [])
        server.servers = [_TakingTurns(server, one) for one in sockets or []]

    uvicorn.Server.startup = start_taking_turns


class _TakingTurns:
    """What accepts the connections of one socket, as uvicorn starts and closes it."""

    def __init__(self, server: uvicorn.Server, shared: socket.socket) -> None:
        self.server, self.shared = server, shared
        shared.setblocking(False)
        self.task = asyncio.create_task(self.accept())

    async def accept(self) -> None:
        loop, config, state = asyncio.get_running_loop(), self.server.config, self.server.server_state
        options = {"config": config, "server_state": state, "app_state": self.server.lifespan.state}
        while True:
            try:
                connection, _ = await loop.sock_accept(self.shared)
                await loop.connect_accepted_socket(lambda: config.http_protocol_class(**options), connection)
            except OSError as error:  # the caller has gone; or there are too many open files
                logger.warning("A connection could not be accepted: %s", error)
                await asyncio.sleep(0.1)  # files stay open for a while; without a pause the log would fill
            await asyncio.sleep(0.001 if len(state.connections) < FEW else 0)

    def close(self) -> None:
        self.task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.wait([self.task])
