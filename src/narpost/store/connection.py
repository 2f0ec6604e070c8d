"""One connection to a Nix daemon: the handshake, and the operations that we need.

Source: `libstore/worker-protocol.{hh,cc}`, `remote-store.cc` and `daemon.cc` of Nix and Lix.
We offer protocol 1.35, which is all that Lix speaks, and go down with an older daemon (Nix 2.8
has 1.34); newer daemons come down to us.
"""

import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from enum import IntEnum

from narpost.errors import MalformedError, PathCorrupt, StoreRefused, StoreUnreachable
from narpost.nix.hashes import Hash
from narpost.nix.path_info import PathInfo
from narpost.nix.store_path import StoreDir, StorePath
from narpost.store import refusal
from narpost.store.wire import EndedEarly, Wire

_CLIENT_MAGIC = 0x6E697863
_DAEMON_MAGIC = 0x6478696F
_OFFERED = (1, 35)
_OLDEST = (1, 34)
# Requests sent before their answers are read: few enough for the daemon's socket buffer.
_IN_FLIGHT = 128
_NARS_AHEAD = 4
# What is kept of a NAR's end, where an error of Nix may stand.
_TAIL_BYTES = 4096
_SIZE_LIMIT = 1 << 63

# A NAR that is over leaves its connection silent; after this time we ask whether it is.
SILENCE_SECONDS = 2.0
# The closing bracket of a NAR, framed.
_NAR_END = (1).to_bytes(8, "little") + b")".ljust(8, b"\0")


class Operation(IntEnum):
    """The worker operations that we use (`WorkerProto::Op`)."""

    QUERY_ALL_VALID_PATHS = 23
    QUERY_PATH_INFO = 26
    QUERY_VALID_PATHS = 31
    NAR_FROM_PATH = 38
    QUERY_DERIVATION_OUTPUT_MAP = 41


class Told(IntEnum):
    """What a daemon says before it answers (`STDERR_*`)."""

    NEXT = 0x6F6C6D67
    LAST = 0x616C7473
    ERROR = refusal.ERROR
    START_ACTIVITY = 0x53545254
    STOP_ACTIVITY = 0x53544F50
    RESULT = 0x52534C54


class Connection:
    """Asks one daemon, one thread at a time.

    Every operation raises `StoreRefused` when the daemon answers with an error and
    `StoreUnreachable` when it does not answer; after either the connection is not to be used
    again. `is_whole` says that the last answer was read to its end.
    """

    def __init__(
        self,
        stream: socket.socket,
        store_dir: StoreDir,
        *,
        stall_seconds: float,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        stream.settimeout(stall_seconds)
        self._wire = Wire(stream)
        self._store_dir = store_dir
        self._on_close = on_close
        self.is_whole = True
        try:
            self.protocol = self._shake_hands()
        except BaseException:
            self.close()
            raise

    def path_infos(self, paths: Sequence[StorePath]) -> dict[StorePath, PathInfo]:
        """What is registered about those of *paths* that are valid; several are asked at once."""
        infos: dict[StorePath, PathInfo] = {}
        for start in range(0, len(paths), _IN_FLIGHT):
            asked = paths[start : start + _IN_FLIGHT]
            for path in asked:
                self._request(Operation.QUERY_PATH_INFO, path)
            self._wire.flush()
            for path in asked:
                self._listen()
                if self._wire.read_number():
                    infos[path] = self._read_info(path)
        return infos

    def valid_paths(self, paths: Iterable[StorePath]) -> set[StorePath]:
        """Those of *paths* that are in the store."""
        self._wire.write_number(Operation.QUERY_VALID_PATHS)
        self._wire.write_strings(map(self._store_dir.render, paths))
        self._wire.write_number(0)  # do not substitute what is missing
        self._ask()
        return set(map(self._parse, self._wire.read_strings()))

    def all_valid_paths(self) -> set[StorePath]:
        """Every path in the store."""
        self._wire.write_number(Operation.QUERY_ALL_VALID_PATHS)
        self._ask()
        return set(map(self._parse, self._wire.read_strings()))

    def outputs(self, derivation: StorePath) -> list[StorePath]:
        """The outputs of *derivation* whose paths are known, valid or not."""
        self._request(Operation.QUERY_DERIVATION_OUTPUT_MAP, derivation)
        self._ask()
        wire = self._wire
        known = [(wire.read_string(), wire.read_string()) for _ in range(wire.read_number())]
        return [self._parse(path) for _name, path in known if path]

    def nars(self, infos: Sequence[PathInfo]) -> Generator[bytes]:
        """The NARs of small paths, each whole; the next are asked for before they are wanted.

        So the daemon reads one while the caller works on another. What `nar` says of NARs that
        are longer or shorter than registered holds for each, and then for all that follow.
        """
        asked = 0
        for number, info in enumerate(infos):
            if asked < min(number + _NARS_AHEAD, len(infos)):
                # Several at a time, since each flush hands the processor to others.
                more = infos[asked : number + 2 * _NARS_AHEAD]
                for each in more:
                    self._request(Operation.NAR_FROM_PATH, each.path)
                self._wire.flush()
                asked += len(more)
            self._listen()
            yield b"".join(self._read_nar(info.path, info.nar_bytes, number + 1 == len(infos)))

    def nar(self, path: StorePath, nar_bytes: int) -> Iterator[bytes]:
        """The first *nar_bytes* of the path's NAR, in large chunks.

        The protocol does not frame a NAR, so its registered size is its end. Bytes that do not
        hash to what is registered mean that it was longer or shorter: then the connection holds
        the rest of it, and must not be used again. One that ends early is `PathCorrupt`.
        """
        self._request(Operation.NAR_FROM_PATH, path)
        self._ask()
        yield from self._read_nar(path, nar_bytes, is_last=True)

    def _read_nar(self, path: StorePath, nar_bytes: int, is_last: bool) -> Iterator[bytes]:
        self.is_whole = False
        tail = b""
        try:
            for chunk in self._wire.read_chunks(nar_bytes, SILENCE_SECONDS):
                tail = (tail + chunk[-_TAIL_BYTES:])[-_TAIL_BYTES:]
                yield chunk
        except EndedEarly as error:
            if refused := refusal.refusal_in(tail):
                raise refused from error
            if not tail.endswith(_NAR_END):
                raise
            raise PathCorrupt(
                f"{path} is not what Nix registered: it is shorter",
                f"repair it with: nix-store --repair-path {self._store_dir.render(path)}",
            ) from error
        self.is_whole = is_last and not self._wire.has_hung_up

    def is_idle(self) -> bool:
        """Whether the daemon is still there, and has nothing to say."""
        return self._wire.is_quiet()

    def hang_up(self) -> None:
        """Let the daemon end by itself; `close` then need not wait for it."""
        self._wire.hang_up()

    def close(self) -> None:
        """Hang up, and wait until a daemon of ours has ended."""
        self._wire.close()
        self._on_close()

    def _shake_hands(self) -> tuple[int, int]:
        wire = self._wire
        wire.write_number(_CLIENT_MAGIC)
        wire.flush()
        if wire.read_number() != _DAEMON_MAGIC:
            raise StoreUnreachable("what answers at the Nix daemon's socket is not a Nix daemon")
        protocol = min(_OFFERED, divmod(wire.read_number(), 1 << 8))
        if protocol < _OLDEST:
            raise StoreUnreachable(
                f"the Nix daemon speaks protocol {protocol[0]}.{protocol[1]}, which is too old",
                "narpost needs Nix 2.8 or later, or Lix",
            )
        wire.write_number(protocol[0] << 8 | protocol[1])
        wire.write_number(0)  # no CPU affinity
        wire.write_number(0)  # no reserved space
        wire.flush()
        wire.read_string()  # the version of Nix
        if protocol >= (1, 35):
            wire.read_number()  # whether it trusts us
        self._listen()
        return protocol

    def _request(self, operation: Operation, path: StorePath) -> None:
        self._wire.write_number(operation)
        self._wire.write_string(self._store_dir.render(path))

    def _ask(self) -> None:
        self._wire.flush()
        self._listen()

    def _listen(self) -> None:
        """Hear what the daemon tells until it says that the answer follows."""
        wire = self._wire
        while (told := wire.read_number()) != Told.LAST:
            match told:
                case Told.NEXT:
                    wire.read_string()
                case Told.START_ACTIVITY:
                    for _ in range(3):
                        wire.read_number()
                    wire.read_string()
                    self._skip_fields()
                    wire.read_number()
                case Told.STOP_ACTIVITY:
                    wire.read_number()
                case Told.RESULT:
                    wire.read_number()
                    wire.read_number()
                    self._skip_fields()
                case Told.ERROR:
                    raise self._read_error()
                case _:
                    raise StoreUnreachable(f"the Nix daemon said {told:#x}, which we do not know")

    def _skip_fields(self) -> None:
        for _ in range(self._wire.read_number()):
            if self._wire.read_number():
                self._wire.read_string()
            else:
                self._wire.read_number()

    def _read_error(self) -> StoreRefused:
        wire = self._wire
        wire.read_string()  # always "Error"
        wire.read_number()  # level
        wire.read_string()  # name
        return refusal.refused(wire.read_string())

    def _read_info(self, path: StorePath) -> PathInfo:
        wire = self._wire
        deriver = wire.read_string()
        nar_hash = wire.read_string()
        references = wire.read_strings()
        wire.read_number()  # registration time
        nar_bytes = wire.read_number()
        is_ultimate = bool(wire.read_number())
        signatures = wire.read_strings()
        content_address = wire.read_string()
        if nar_bytes >= _SIZE_LIMIT or not all(map(_is_field, [*signatures, content_address])):
            raise StoreRefused(f"the Nix daemon describes {path} in no way that Nix does")
        try:
            digest = Hash.parse_base16("sha256", nar_hash)
        except MalformedError as error:
            raise StoreRefused(f"the Nix daemon says of {path} {nar_hash!r}, no hash") from error
        return PathInfo(
            path=path,
            nar_hash=digest,
            nar_bytes=nar_bytes,
            references=tuple(sorted(map(self._parse, references))),
            deriver=self._parse(deriver) if deriver else None,
            signatures=tuple(signatures),
            content_address=content_address,
            is_ultimate=is_ultimate,
        )

    def _parse(self, text: str) -> StorePath:
        try:
            return self._store_dir.parse(text)
        except MalformedError as error:
            raise StoreUnreachable(f"the Nix daemon answered {text!r}, no store path") from error


def _is_field(text: str) -> bool:
    """Whether *text* can stand in a narinfo: in one line, and as bytes."""
    return text.isprintable()
