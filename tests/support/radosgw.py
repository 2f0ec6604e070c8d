"""A real S3 server for the tests: Ceph's gateway over one monitor and one OSD in memory.

Each server is three plain processes on 127.0.0.1, and a few short-lived tools to set it up.
They all work inside the folder they are given and name files relative to it,
so a long or odd path does no harm, no unix socket is opened, and several servers live side by side.

They are stopped in the reverse order of their start, since a gateway without its OSD waits for it.
If the tests are killed outright the kernel kills the processes too, by their parent death signal.
That signal is tied to the thread which called `running`: it has to outlive the server.
"""

import http.client
import os
import secrets
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

PROGRAMS = ("setpriv", "monmaptool", "ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
START_SECONDS = 60.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 30

# Relative names hold because every process starts in the folder and `chdir` is empty.
CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}/0]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1

# Nothing outside the folder; logs go to stderr.
chdir =
run_dir = .
crash_dir = .
keyring = keyring
admin_socket =
pid_file =
log_file =
mon_cluster_log_file =
mon_data = mon
osd_data = osd
rgw_data = rgw

# The gateway never starts without authentication unless the monitor client uses crc.
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc

# One monitor has nobody to wait for: start takes 1 s instead of 13 s.
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mon_data_avail_crit = 1
# A client that comes before the OSD is up asks again after this time, by default 5 s.
objecter_tick_interval = 0.2

# 12 GiB is a limit, not a reservation: memory is taken as objects are stored.
osd_objectstore = memstore
memstore_device_bytes = 12884901888
osd_class_load_list = *
osd_class_default_list = *
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
rgw_rados_pool_pg_num_min = 4
mon_allow_pool_size_one = true

# Without tcp_nodelay each small write takes 40 ms.
rgw_frontends = beast endpoint=127.0.0.1:{s3_port} tcp_nodelay=1
# The lifecycle thread sleeps through a request to stop, for 5 s or more.
rgw_enable_lc_threads = false
"""


class StartError(Exception):
    """The server did not start; the message shows the logs that tell why."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where a running server listens, the keys of one of its users, and the folder it lies in."""

    endpoint: str
    access_key: str
    secret_key: str
    folder: Path

    def as_new_user(self, name: str) -> Self:
        """The same server, seen by a user that owns nothing; *name* is its access key too."""
        newcomer = replace(self, access_key=name, secret_key=secrets.token_hex(20))
        newcomer._administer("create", *newcomer.identity)
        return newcomer

    def remove_user(self) -> None:
        """From now on the server knows this user no more."""
        self._administer("rm", "--uid", self.access_key)

    @property
    def identity(self) -> tuple[str, ...]:
        """What `radosgw-admin user create` is to be told of this user."""
        names = ("--uid", self.access_key, "--display-name", self.access_key)
        return (*names, "--access-key", self.access_key, "--secret-key", self.secret_key)

    def _administer(self, verb: str, *arguments: str) -> None:
        command = ("radosgw-admin", "--conf", "ceph.conf", "user", verb, *arguments)
        name = f"user-{verb}-{self.access_key}"
        with _process(self.folder, name, command) as tool:
            tool.wait(START_SECONDS)
        if tool.returncode != 0:
            raise StartError(f"user {verb} failed\n{_tail(self.folder / f'{name}.log')}")


def missing_programs() -> list[str]:
    """Name the programs a server needs which are not on this machine."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """Run a server in *folder*, new or empty; raise StartError if it does not come up."""
    folder.mkdir(parents=True, exist_ok=True)
    mon_port, s3_port = _free_ports(2)
    endpoint = f"http://127.0.0.1:{s3_port}"
    server = S3Server(endpoint, "narpost-tests", secrets.token_hex(20), folder)
    fsid = str(uuid.uuid4())
    configuration = CONFIGURATION.format(fsid=fsid, mon_port=mon_port, s3_port=s3_port)
    (folder / "ceph.conf").write_text(configuration)
    with ExitStack() as stack:
        processes = _Processes(folder, stack, time.monotonic() + START_SECONDS)
        _start_mon(processes, fsid, mon_port)
        _start_osd(processes)
        _start_gateway(processes, server, s3_port)
        yield server


@dataclass(frozen=True, slots=True)
class _Processes:
    """What runs in *folder*: daemons until *stack* closes, tools until they are done.

    Each writes to `<name>.log`. All waiting ends at *deadline*, or when a daemon ends.
    """

    folder: Path
    stack: ExitStack
    deadline: float
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str) -> None:
        """Start a daemon."""
        process = self.stack.enter_context(_process(self.folder, name, command))
        self.daemons[name] = process

    def run(self, name: str, *command: str) -> None:
        """Run a tool to its end, which must be a good one."""
        with _process(self.folder, name, command) as tool:
            self.wait(name, lambda: tool.poll() is not None)
        if tool.returncode != 0:
            raise StartError(f"{name} ended with {tool.returncode}{self.logs(name)}")

    def wait(self, name: str, is_done: Callable[[], bool]) -> None:
        """Wait until *is_done*, as *name* is to bring about."""
        while not is_done():
            for daemon, process in self.daemons.items():
                if process.poll() is not None:
                    raise StartError(f"{daemon} ended with {process.returncode}{self.logs(daemon)}")
            if time.monotonic() > self.deadline:
                # A tool waits in silence for the daemon at fault.
                logs = self.logs(*{name: None, **self.daemons})
                raise StartError(f"{name} was not done after {START_SECONDS:.0f} s{logs}")
            time.sleep(POLL_SECONDS)

    def logs(self, *names: str) -> str:
        """Show how the logs of *names* end."""
        return "".join(f"\n{_tail(self.folder / f'{name}.log')}" for name in names)


def _start_mon(processes: _Processes, fsid: str, port: int) -> None:
    """Start the monitor, alone in its map."""
    address = f"[v2:127.0.0.1:{port}/0]"
    processes.run(
        "monmap", "monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, "monmap"
    )
    mon = ("ceph-mon", "--conf", "ceph.conf", "--id", "a")
    processes.run("mon-mkfs", *mon, "--mkfs", "--monmap", "monmap")
    processes.start("mon", *mon, "-d")


def _start_osd(processes: _Processes) -> None:
    """Start the one OSD, which gets number 0."""
    (processes.folder / "osd").mkdir()
    osd = ("ceph-osd", "--conf", "ceph.conf", "--id", "0")
    processes.run("osd-create", "ceph", "--conf", "ceph.conf", "osd", "create")
    processes.run("osd-mkfs", *osd, "--mkfs")
    processes.start("osd", *osd, "-d")


def _start_gateway(processes: _Processes, server: S3Server, port: int) -> None:
    """Start the gateway with its first user, and wait until it answers."""
    admin = ("radosgw-admin", "--conf", "ceph.conf")
    processes.run("user", *admin, "user", "create", *server.identity)
    processes.start("radosgw", "radosgw", "--conf", "ceph.conf", "--name", "client.rgw", "-d")
    processes.wait("radosgw", lambda: _answers(port))


@contextmanager
def _process(
    folder: Path, name: str, command: tuple[str, ...]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* in *folder* until the block ends or this process dies."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            cwd=folder,
            # Nothing else, so that no CEPH_ARGS or PYTHONPATH of the caller gets in.
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the tests alone, else all would stop at once and out of order.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask *process* to end, and kill it if it does not or if the wait is interrupted."""
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    """Show the path of *log* and its last lines."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line]
    return "\n".join([f"{log}:", *lines[-LOG_TAIL_LINES:]])


def _free_ports(count: int) -> list[int]:
    """Find ports nobody listens on, held together so that no two are the same."""
    with ExitStack() as held:
        listeners = [
            held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [listener.getsockname()[1] for listener in listeners]


def _answers(port: int) -> bool:
    """Tell whether somebody speaks HTTP on *port*."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
