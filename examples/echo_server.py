"""A TCP server that sends back every line; Ctrl-C or SIGTERM ends it.

ioxide run examples/echo_server.py [port]
"""

import asyncio
import signal
import sys


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer = "{}:{}".format(*writer.get_extra_info("peername"))
    print(f"{peer} connected", flush=True)
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()
    await writer.wait_closed()
    print(f"{peer} disconnected", flush=True)


async def main(port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with await asyncio.start_server(echo, "127.0.0.1", port) as server:
        print("Serving on {}:{}".format(*server.sockets[0].getsockname()), flush=True)
        await stopped.wait()
    print("Server stopped", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8888))
