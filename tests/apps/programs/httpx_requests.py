"""httpx against fastapi_application, whose URL is the first argument and whose Unix socket is the second, if any."""

import asyncio
import hashlib
import sys

import httpx

PIECE = bytes(range(256)) * 256
WHOLE = hashlib.sha256(PIECE * 64).hexdigest()


async def answers(client: httpx.AsyncClient) -> None:
    print("item", (await client.post("/items", json={"name": "tea", "price": 1.25})).json())
    while not (noted := (await client.get("/noted")).json()):  # a background task does it, after the answer
        await asyncio.sleep(0.01)
    print("noted", noted)
    refused = await client.post("/items", json={"name": "tea"})
    print("invalid", refused.status_code, refused.json()["detail"][0]["loc"])
    absent = await client.get("/missing")
    print("missing", absent.status_code, absent.json())


async def many_at_once(client: httpx.AsyncClient) -> None:
    async def one(path: str, number: int) -> httpx.Response:
        return await client.get(f"/{path}/{number}")

    numbers = await asyncio.gather(*(one("number", number) for number in range(150)))
    print("at once", [answer.json() for answer in numbers] == [{"number": number} for number in range(150)])
    threads = await asyncio.gather(*(one("in-a-thread", number) for number in range(100)))
    print("in threads", [answer.json() for answer in threads] == list(range(100)))


async def streams(client: httpx.AsyncClient) -> None:
    digest = hashlib.sha256()
    async with client.stream("GET", "/download") as response:
        async for piece in response.aiter_bytes(10_000):
            digest.update(piece)
    print("download", digest.hexdigest() == WHOLE)

    async def pieces() -> object:
        for _ in range(64):
            yield PIECE
            await asyncio.sleep(0)

    print("upload", (await client.post("/upload", content=pieces())).json() == WHOLE)


async def interrupted(client: httpx.AsyncClient) -> None:
    try:
        await client.get("/slow?seconds=0.3", timeout=0.1)
    except httpx.ReadTimeout as error:
        print("timeout", repr(error))
    request = asyncio.create_task(client.get("/slow?seconds=0.3"))
    await asyncio.sleep(0.1)
    request.cancel("enough")
    try:
        await request
    except asyncio.CancelledError:
        print("cancelled")
    print("after", (await client.get("/number/1")).json())


async def keep_alive(client: httpx.AsyncClient) -> None:
    streams = set()
    for number in range(10):
        response = await client.get(f"/number/{number}")
        sock = response.extensions["network_stream"].get_extra_info("socket")
        streams.add((sock.fileno(), sock.getsockname()))
    print("keep-alive", len(streams), "connection")


async def main() -> None:
    print(type(asyncio.get_running_loop()).__module__)
    base, path = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    limits = httpx.Limits(max_connections=150)
    transport = httpx.AsyncHTTPTransport(uds=path, limits=limits)
    async with httpx.AsyncClient(base_url=base, transport=transport, timeout=30) as client:
        await answers(client)
        await many_at_once(client)
        await streams(client)
        await interrupted(client)
    async with httpx.AsyncClient(base_url=base, transport=httpx.AsyncHTTPTransport(uds=path)) as client:
        await keep_alive(client)
    try:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds="/nowhere/http.sock")) as client:
            await client.get("http://unix/")
    except httpx.ConnectError as error:
        print("refused", error)


asyncio.run(main())
