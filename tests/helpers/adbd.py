"""A stand-in for the daemon of an Android phone; a real adb connects to it over loopback.

The protocol is described in AOSP, packages/modules/adb/protocol.txt and SYNC.TXT. Commands run in
this machine's sh, with a folder of the phone's own tools (getprop, dumpsys, cmd) first on PATH.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import secrets
import signal
import stat
import struct
import threading

VERSION, MAX_DATA = 0x01000001, 256 * 1024
TOKEN, RSA_PUBLIC_KEY = 1, 3
STDOUT, STDERR, EXIT = 1, 2, 3
BANNER = b"device::ro.product.name=stand;ro.product.model=Stand-in;features=shell_v2,cmd\0"


@dataclasses.dataclass
class Faults:
    """The faults of the phone; tests change them while it runs."""

    authorised: bool = True  # the user answers the question with yes
    pushes_cut_off: int = 0  # number of pushes that end in a lost connection
    cut_off_after: int = 1000  # bytes before the connection is lost
    pulls_damaged: int = 0  # number of fetched files in which a bit is flipped
    free_bytes: float = float("inf")  # of the disk
    hang_on: str = "\0"  # commands with this text never end
    shells: list[str] = dataclasses.field(default_factory=list)  # every command so far
    pushed: list[str] = dataclasses.field(default_factory=list)  # every file received so far


class Phone:
    """The daemon, in a thread of its own; `serial` is the address to connect to."""

    def __init__(self, tools: pathlib.Path, faults: Faults | None = None):
        self.faults = faults or Faults()
        self._environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = 0
        self.switch_on()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    def switch_on(self) -> None:
        async def start():
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            return self._server.sockets[0].getsockname()[1]

        self.port = self._call(start())

    def switch_off(self) -> None:
        async def stop():
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()

        self._call(stop())

    def close(self) -> None:
        self.switch_off()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _serve(self, reader, writer) -> None:
        self._writers.add(writer)
        try:
            await Connection(reader, writer, self.faults, self._environment).serve()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


class Connection:
    """One adb server's connection: messages in, streams by their number."""

    def __init__(self, reader, writer, faults: Faults, environment: dict[str, str]):
        self.reader, self.writer, self.faults = reader, writer, faults
        self.environment = environment
        self.streams: dict[int, Stream] = {}
        self.tasks: set[asyncio.Task] = set()

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        code = struct.unpack("<I", command)[0]
        header = (code, first, second, len(data), sum(data) & 0xFFFFFFFF, code ^ 0xFFFFFFFF)
        self.writer.write(struct.pack("<6I", *header) + data)

    async def receive(self) -> tuple[bytes, int, int, bytes]:
        header = struct.unpack("<6I", await self.reader.readexactly(24))
        data = await self.reader.readexactly(header[3])
        return struct.pack("<I", header[0]), header[1], header[2], data

    async def serve(self) -> None:
        try:
            while True:
                await self.handle(*await self.receive())
        finally:
            for task in self.tasks:
                task.cancel()

    async def handle(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command == b"CNXN":
            self.send(b"AUTH", TOKEN, 0, secrets.token_bytes(20))
        elif command == b"AUTH" and first == RSA_PUBLIC_KEY:
            if self.faults.authorised:  # else the question stays unanswered
                self.send(b"CNXN", VERSION, MAX_DATA, BANNER)
        elif command == b"AUTH":  # a signature by a key that is not known
            self.send(b"AUTH", TOKEN, 0, secrets.token_bytes(20))
        elif command == b"OPEN":
            stream = Stream(self, len(self.streams) + 1, first)
            self.streams[stream.ours] = stream
            self.send(b"OKAY", stream.ours, stream.theirs)
            task = asyncio.create_task(stream.serve(data.rstrip(b"\0").decode()))
            self.tasks.add(task)
        elif second in self.streams:
            stream = self.streams[second]
            if command == b"WRTE":
                stream.incoming.feed_data(data)
                self.send(b"OKAY", stream.ours, stream.theirs)
            elif command == b"OKAY":
                stream.acknowledged.set()
            elif command == b"CLSE":
                stream.incoming.feed_eof()
                stream.acknowledged.set()
                stream.closed = True


class Stream:
    """One service within a connection."""

    def __init__(self, connection: Connection, ours: int, theirs: int):
        self.connection, self.ours, self.theirs = connection, ours, theirs
        self.incoming = asyncio.StreamReader()
        self.acknowledged = asyncio.Event()
        self.closed = False

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_DATA // 4):
            self.acknowledged.clear()
            block = data[start : start + MAX_DATA // 4]
            self.connection.send(b"WRTE", self.ours, self.theirs, block)
            await self.acknowledged.wait()

    async def serve(self, service: str) -> None:
        name, _, argument = service.partition(":")
        try:
            if name == "sync":
                await self.sync()
            elif name.split(",")[0] in ("shell", "exec"):
                await self.shell(argument, "v2" in name.split(","))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.connection.send(b"CLSE", self.ours, self.theirs)

    async def shell(self, command: str, packets: bool) -> None:
        self.connection.faults.shells.append(command)
        if self.connection.faults.hang_on in command:
            await asyncio.sleep(3600)
        process = await asyncio.create_subprocess_shell(
            command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.connection.environment,
            start_new_session=True,
        )

        async def forward(stream, number):
            while data := await stream.read(4096):
                await self.packet(number, data, packets)

        try:
            await asyncio.gather(forward(process.stdout, STDOUT), forward(process.stderr, STDERR))
            code = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if packets:
            await self.packet(EXIT, bytes([code & 255]), packets)

    async def packet(self, number: int, data: bytes, packets: bool) -> None:
        await self.write(struct.pack("<BI", number, len(data)) + data if packets else data)

    async def sync(self) -> None:
        while True:
            request, length = struct.unpack("<4sI", await self.incoming.readexactly(8))
            if request == b"QUIT":
                return
            path = (await self.incoming.readexactly(length)).decode()
            service = {b"STAT": self.stat, b"LIST": self.list, b"SEND": self.store}
            await service.get(request, self.fetch)(path)

    async def stat(self, path: str) -> None:
        await self.write(b"STAT" + self.entry(path))

    @staticmethod
    def entry(path: str) -> bytes:
        try:
            found = os.stat(path)
        except OSError:
            return struct.pack("<3I", 0, 0, 0)
        return struct.pack("<3I", found.st_mode, found.st_size, int(found.st_mtime))

    async def list(self, path: str) -> None:
        for name in sorted(os.listdir(path)):
            entry = self.entry(os.path.join(path, name))
            await self.write(b"DENT" + entry + struct.pack("<I", len(name)) + name.encode())
        await self.write(b"DONE" + bytes(16))

    async def store(self, target: str) -> None:
        faults = self.connection.faults
        path, _, mode = target.rpartition(",")
        faults.pushed.append(path)
        content, error = bytearray(), b""
        while True:
            kind, length = struct.unpack("<4sI", await self.incoming.readexactly(8))
            if kind == b"DONE":
                break
            content += await self.incoming.readexactly(length)
            if faults.pushes_cut_off and len(content) >= faults.cut_off_after:
                faults.pushes_cut_off -= 1
                self.connection.writer.transport.abort()
                raise ConnectionError
            if len(content) > faults.free_bytes:
                error = b"couldn't write file: No space left on device"
        faults.free_bytes -= len(content)
        if error:
            await self.write(b"FAIL" + struct.pack("<I", len(error)) + error)
            return
        pathlib.Path(path).write_bytes(content)
        os.chmod(path, stat.S_IMODE(int(mode)))
        await self.write(b"OKAY" + struct.pack("<I", 0))

    async def fetch(self, path: str) -> None:
        content = bytearray(pathlib.Path(path).read_bytes())
        if self.connection.faults.pulls_damaged:
            self.connection.faults.pulls_damaged -= 1
            content[len(content) // 2] ^= 1
        for start in range(0, len(content), 65536):
            block = content[start : start + 65536]
            await self.write(b"DATA" + struct.pack("<I", len(block)) + block)
        await self.write(b"DONE" + struct.pack("<I", 0))
