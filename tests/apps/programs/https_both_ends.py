"""aiohttp, httpx and websockets over TLS with a private certificate authority, whose folder is the first argument."""

import asyncio
import ssl
import sys

import aiohttp
import httpx
import websockets
from aiohttp import web

FOLDER = sys.argv[1]
BODY = bytes(range(256)) * 4096


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{FOLDER}/server.pem")
    return context


def client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=f"{FOLDER}/ca.pem")


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), headers={"scheme": request.scheme})


async def with_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_context())) as session:

        async def one(size: int) -> bool:
            async with session.post(url, data=BODY[:size]) as response:
                return response.headers["scheme"] == "https" and await response.read() == BODY[:size]

        print("aiohttp", await one(1), await one(len(BODY)))
        print("aiohttp at once", all(await asyncio.gather(*(one(number * 1000) for number in range(100)))))
    async with aiohttp.ClientSession() as session:
        try:
            await session.get(url)
        except aiohttp.ClientConnectorCertificateError as error:
            print("aiohttp refuses", type(error.certificate_error).__name__)


async def with_httpx(url: str) -> None:
    async with httpx.AsyncClient(verify=client_context()) as client:
        answers = await asyncio.gather(*(client.post(url, content=BODY[: number * 1000]) for number in range(50)))
        print("httpx", [len(answer.content) for answer in answers] == [number * 1000 for number in range(50)])
    async with httpx.AsyncClient() as client:
        try:
            await client.get(url)
        except httpx.ConnectError as error:
            print("httpx refuses", "CERTIFICATE_VERIFY_FAILED" in str(error))


async def with_websockets() -> None:
    async def handle(connection: websockets.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(handle, "localhost", 0, ssl=server_context(), max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with websockets.connect(f"wss://localhost:{port}", ssl=client_context(), max_size=None) as connection:
            await connection.send("text")
            print("websockets", await connection.recv())
            await connection.send(BODY)
            print("websockets", await connection.recv() == BODY)
        print("websockets closed", connection.close_code)


async def main() -> None:
    print(type(asyncio.get_running_loop()).__module__)
    application = web.Application(client_max_size=1 << 24)
    application.router.add_post("/", echo)
    application.router.add_get("/", echo)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0, ssl_context=server_context()).start()
    url = f"https://localhost:{runner.addresses[0][1]}/"
    # A client that refuses the certificate makes the server's handshake fail, which asyncio reports.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: None)
    await with_aiohttp(url)
    await with_httpx(url)
    await runner.cleanup()
    await with_websockets()


asyncio.run(main())
