"""A FastAPI application as its documentation begins, for uvicorn to serve: `uvicorn fastapi_application:application`."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

PIECE = bytes(range(256)) * 256
noted: list[str] = []


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    print(type(asyncio.get_running_loop()).__module__)
    yield
    print("lifespan ends")


application = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    name: str
    price: float


@application.get("/loop")
async def loop() -> str:
    return type(asyncio.get_running_loop()).__module__


@application.get("/number/{number}")
async def number(number: int) -> dict[str, int]:
    await asyncio.sleep(0.01)
    return {"number": number}


@application.get("/in-a-thread/{number}")
def in_a_thread(number: int) -> int:
    time.sleep(0.01)
    return number


@application.post("/items")
async def items(item: Item, background: BackgroundTasks) -> Item:
    background.add_task(noted.append, item.name)
    return Item(name=item.name.upper(), price=item.price * 2)


@application.get("/noted")
async def what_was_noted() -> list[str]:
    return noted


@application.get("/missing")
async def missing() -> None:
    raise HTTPException(404, "no such thing")


@application.get("/download")
async def download() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield PIECE

    return StreamingResponse(pieces())


@application.post("/upload")
async def upload(request: Request) -> str:
    digest = hashlib.sha256()
    async for piece in request.stream():
        digest.update(piece)
    return digest.hexdigest()


@application.get("/slow")
async def slow(seconds: float) -> str:
    print("slow begins")
    await asyncio.sleep(seconds)
    print("slow ends")
    return "slow"
