"""An echo over QUIC: aioquic's server and client, several streams at once, over one UDP endpoint each."""

from __future__ import annotations

import asyncio
import datetime
import ssl

from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    return builder.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256()), key


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read())
    writer.write_eof()


async def main() -> None:
    print(type(asyncio.get_running_loop()).__module__)
    tasks: set[asyncio.Task[None]] = set()

    def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(echo(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    configuration = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
    configuration.certificate, configuration.private_key = certificate()
    server = await serve("127.0.0.1", 0, configuration=configuration, stream_handler=on_stream)
    port = server._transport.get_extra_info("sockname")[1]  # type: ignore[union-attr]
    client = QuicConfiguration(alpn_protocols=["echo"], verify_mode=ssl.CERT_NONE)
    async with connect("127.0.0.1", port, configuration=client) as connection:
        await connection.ping()
        print("ping")

        async def ask(number: int) -> bool:
            reader, writer = await connection.create_stream()
            data = b"%d " % number * 10_000
            writer.write(data)
            writer.write_eof()
            return await reader.read() == data

        print("streams", sum(await asyncio.gather(*[ask(number) for number in range(20)])))
    await connection.wait_closed()
    server.close()
    print("closed")
    await asyncio.gather(*tasks)
    await asyncio.sleep(0.05)
    print("tasks left", len(asyncio.all_tasks()) - 1)


if __name__ == "__main__":
    asyncio.run(main())
