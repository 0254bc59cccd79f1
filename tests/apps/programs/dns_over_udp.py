"""A small DNS server and client over UDP: real messages, several questions at once, a lost answer asked for again."""

from __future__ import annotations

import asyncio
import ipaddress
import struct

ADDRESS, TEXT = 1, 16
NO_SUCH_NAME, REFUSED = 3, 5
HEADER = struct.Struct("!6H")
ZONE: dict[tuple[str, int], list[bytes]] = {
    ("one.example", ADDRESS): [ipaddress.IPv4Address("192.0.2.1").packed],
    ("many.example", ADDRESS): [ipaddress.IPv4Address(f"192.0.2.{last}").packed for last in range(10, 30)],
    ("text.example", TEXT): [b"\x0bhello there"],
    ("slow.example", ADDRESS): [ipaddress.IPv4Address("192.0.2.9").packed],
}


def pack_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def unpack_name(message: bytes, start: int) -> tuple[str, int]:
    labels = []
    while length := message[start]:
        if length & 0xC0:
            target = struct.unpack_from("!H", message, start)[0] & 0x3FFF
            return ".".join([*labels, unpack_name(message, target)[0]]), start + 2
        labels.append(message[start + 1 : start + 1 + length].decode())
        start += 1 + length
    return ".".join(labels), start + 1


class Server(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        number = HEADER.unpack_from(data)[0]
        name, end = unpack_name(data, HEADER.size)
        kind = struct.unpack_from("!H", data, end)[0]
        self.asked[name] = self.asked.get(name, 0) + 1
        if name == "slow.example" and self.asked[name] == 1:
            return  # as if the answer were lost
        records = ZONE.get((name, kind), [])
        code = 0 if records else NO_SUCH_NAME if name.endswith(".example") else REFUSED
        answer = HEADER.pack(number, 0x8400 | code, 1, len(records), 0, 0) + data[HEADER.size : end + 4]
        for record in records:
            answer += struct.pack("!HHHIH", 0xC000 | HEADER.size, kind, 1, 300, len(record)) + record
        self.transport.sendto(answer, addr)


class Client(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.errors: list[str] = []
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        waiter = self.waiting.pop(HEADER.unpack_from(data)[0], None)
        if waiter is not None and not waiter.done():
            waiter.set_result(data)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(type(exc).__name__)
        for waiter in self.waiting.values():
            if not waiter.done():
                waiter.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    async def ask(self, number: int, name: str, kind: int = ADDRESS) -> list[str]:
        question = HEADER.pack(number, 0x0100, 1, 0, 0, 0) + pack_name(name) + struct.pack("!HH", kind, 1)
        for _ in range(3):
            waiter = self.waiting[number] = asyncio.get_running_loop().create_future()
            self.transport.sendto(question)
            try:
                async with asyncio.timeout(1):
                    return self.read(await waiter)
            except TimeoutError:
                continue
        return ["nobody answers"]

    def read(self, answer: bytes) -> list[str]:
        _, flags, _, count, _, _ = HEADER.unpack_from(answer)
        if flags & 15:
            return [f"error {flags & 15}"]
        _, place = unpack_name(answer, HEADER.size)
        place += 4
        records = []
        for _ in range(count):
            _, place = unpack_name(answer, place)
            kind, _, _, length = struct.unpack_from("!HHIH", answer, place)
            data = answer[place + 10 : place + 10 + length]
            records.append(str(ipaddress.IPv4Address(data)) if kind == ADDRESS else data[1:].decode())
            place += 10 + length
        return records


async def main() -> None:
    loop = asyncio.get_running_loop()
    print(type(loop).__module__)
    serving, server = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    address = serving.get_extra_info("sockname")
    transport, client = await loop.create_datagram_endpoint(Client, remote_addr=address)
    print("one", await client.ask(1, "one.example"))
    print("text", await client.ask(2, "text.example", TEXT))
    print("many", len(await client.ask(3, "many.example")))
    print("missing", await client.ask(4, "missing.example"))
    print("refused", await client.ask(5, "elsewhere.test"))
    print("slow", await client.ask(6, "slow.example"), server.asked["slow.example"])
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.ask(100 + number, "one.example")) for number in range(200)]
    print("at once", sum(task.result() == ["192.0.2.1"] for task in tasks))
    serving.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        print("gone", await client.ask(7, "one.example"))
    except ConnectionRefusedError:
        print("gone", client.errors)
    transport.close()
    print("lost", await client.lost)
    print("tasks left", len(asyncio.all_tasks()) - 1)


if __name__ == "__main__":
    asyncio.run(main())
