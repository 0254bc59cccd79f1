"""An aiohttp server and its client in one process, on a TCP port and a Unix socket: what an HTTP program does all day."""

import asyncio
import hashlib
import io
import sys

from aiohttp import ClientSession, ClientTimeout, TCPConnector, UnixConnector, WSMsgType, web

PIECE = bytes(range(256)) * 256
PIECES = 64
WHOLE = hashlib.sha256(PIECE * PIECES).hexdigest()


class Server:
    """Counts what it sees: connections by their peers' ports, and handlers that were cancelled."""

    def __init__(self) -> None:
        self.peers: set[object] = set()
        self.left_early = asyncio.Event()
        application = web.Application(client_max_size=2 * PIECES * len(PIECE))
        application.router.add_get("/number/{number}", self.number)
        application.router.add_get("/download", self.download)
        application.router.add_post("/upload", self.upload)
        application.router.add_get("/slow", self.slow)
        application.router.add_get("/broken", self.broken)
        application.router.add_get("/socket", self.socket)
        self.runner = web.AppRunner(application, handler_cancellation=True)

    async def number(self, request: web.Request) -> web.Response:
        self.peers.add(request.transport.get_extra_info("peername"))
        await asyncio.sleep(0.01)
        return web.json_response({"number": int(request.match_info["number"])})

    async def download(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if "compressed" in request.query:
            response.enable_compression()
        await response.prepare(request)
        for _ in range(PIECES):
            await response.write(PIECE)
        await response.write_eof()
        return response

    async def upload(self, request: web.Request) -> web.Response:
        digest = hashlib.sha256()
        async for piece in request.content.iter_any():
            digest.update(piece)
            await asyncio.sleep(0)  # slower than the sender, so that it is told to wait
        return web.Response(text=digest.hexdigest())

    async def slow(self, request: web.Request) -> web.Response:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.left_early.set()
            raise
        return web.Response()

    async def broken(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        request.transport.abort()
        return response

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        answers = web.WebSocketResponse(max_msg_size=0)
        await answers.prepare(request)
        async for message in answers:
            if message.type is WSMsgType.BINARY:
                await answers.send_bytes(message.data[::-1])
            elif message.data == "bye":
                await answers.close(code=4000, message=b"as you wish")
            else:
                await answers.send_str(message.data.upper())
        return answers


async def many_at_once(client: ClientSession, server: Server, base: str) -> None:
    async def one(number: int) -> int:
        async with client.get(f"{base}/number/{number}") as response:
            return (await response.json())["number"]

    print("at once", await asyncio.gather(*map(one, range(300))) == list(range(300)))


async def keep_alive(server: Server, base: str) -> None:
    server.peers.clear()
    async with ClientSession(connector=TCPConnector(limit=1)) as client:
        for number in range(20):
            async with client.get(f"{base}/number/{number}") as response:
                await response.read()
    print("keep-alive", len(server.peers), "connection")


async def streams(client: ClientSession, base: str) -> None:
    for query in ("", "?compressed"):
        digest = hashlib.sha256()
        async with client.get(f"{base}/download{query}") as response:
            async for piece in response.content.iter_chunked(10_000):
                digest.update(piece)
        print("download", response.headers.get("Content-Encoding"), digest.hexdigest() == WHOLE)

    async def pieces() -> object:
        for _ in range(PIECES):
            yield PIECE

    async with client.post(f"{base}/upload", data=pieces()) as response:
        print("upload in pieces", await response.text() == WHOLE)
    async with client.post(f"{base}/upload", data=io.BytesIO(PIECE * PIECES)) as response:
        print("upload at once", await response.text() == WHOLE)


async def web_sockets(client: ClientSession, base: str) -> None:
    async with client.ws_connect(f"{base}/socket", max_msg_size=0) as connection:
        for number in range(100):
            await connection.send_str(f"message {number}")
        answers = [(await connection.receive()).data for _ in range(100)]
        print("texts", answers == [f"MESSAGE {number}" for number in range(100)])
        big = PIECE * 16
        await connection.send_bytes(big)
        print("binary", (await connection.receive()).data == big[::-1])
        await connection.send_str("bye")
        message = await connection.receive()
        print("closed", message.type.name, message.data, message.extra, connection.close_code)

    async def talk(number: int) -> str:
        async with client.ws_connect(f"{base}/socket") as connection:
            await connection.send_str(f"talk {number}")
            return (await connection.receive()).data

    print("talks", await asyncio.gather(*map(talk, range(100))) == [f"TALK {number}" for number in range(100)])


async def interrupted(client: ClientSession, server: Server, base: str) -> None:
    try:
        await client.get(f"{base}/slow", timeout=ClientTimeout(total=0.1))
    except TimeoutError as error:
        print("timeout", type(error).__name__)
    await asyncio.wait_for(server.left_early.wait(), 10)
    server.left_early.clear()
    request = asyncio.create_task(client.get(f"{base}/slow"))
    await asyncio.sleep(0.1)
    request.cancel("enough")
    try:
        await request
    except asyncio.CancelledError as error:
        print("cancelled", error.args)
    await asyncio.wait_for(server.left_early.wait(), 10)
    print("the server's handlers were cancelled too")
    try:
        async with client.get(f"{base}/broken") as response:
            await response.read()
    except Exception as error:
        print("broken", type(error).__name__)


async def all_of_it(client: ClientSession, server: Server, base: str) -> None:
    await many_at_once(client, server, base)
    await streams(client, base)
    await web_sockets(client, base)
    await interrupted(client, server, base)


async def main() -> None:
    print(type(asyncio.get_running_loop()).__module__)
    server = Server()
    await server.runner.setup()
    try:
        site = web.TCPSite(server.runner, "127.0.0.1", 0)
        await site.start()
        base = "http://127.0.0.1:{1}".format(*server.runner.addresses[0])
        async with ClientSession(connector=TCPConnector(limit=0)) as client:
            await all_of_it(client, server, base)
        await keep_alive(server, base)
        path = sys.argv[1]
        await web.UnixSite(server.runner, path, backlog=1000).start()
        async with ClientSession(connector=UnixConnector(path, limit=0)) as client:
            await all_of_it(client, server, "http://unix")
    finally:
        await server.runner.cleanup()
    try:
        async with ClientSession() as client:
            await client.get(base)
    except OSError as error:
        print("refused", type(error).__name__, error.errno)


asyncio.run(main())
