"""Sends lines to the echo server and prints what comes back.

ioxide run examples/echo_client.py [port] [line ...]
"""

import asyncio
import sys


async def main(port: int, lines: list[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for line in lines:
        writer.write(f"{line}\n".encode())
        await writer.drain()
        answer = await reader.readline()
        print(f"Sent {line!r}, received {answer.decode().rstrip()!r}")
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
    asyncio.run(main(port, sys.argv[2:] or ["Hello", "from", "asyncio"]))
