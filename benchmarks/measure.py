"""What a command costs: wall time, CPU and memory of the whole process, children included."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


class CommandFailed(Exception):
    """A measured command ended with an error; the message is what it wrote."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of wall time and of CPU; *peak_bytes* is the largest process of them."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Runs:
    """Several runs of one thing."""

    costs: tuple[Cost, ...]

    @property
    def seconds(self) -> float:
        """The median wall time."""
        return statistics.median(cost.seconds for cost in self.costs)

    @property
    def cpu_seconds(self) -> float:
        """The median CPU time."""
        return statistics.median(cost.cpu_seconds for cost in self.costs)

    @property
    def peak_bytes(self) -> int:
        """The highest of the peaks."""
        return max(cost.peak_bytes for cost in self.costs)

    def as_json(self) -> dict[str, Any]:
        """Medians, and each run."""
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_bytes": self.peak_bytes,
            "runs": [asdict(cost) for cost in self.costs],
        }


def run(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Cost:
    """Run *command* to its end; what it writes goes to the file *log*."""
    with log.open("wb") as sink:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = log.read_text(errors="replace")[-2000:]
        raise CommandFailed(f"{command[:4]} … ended with {process.returncode}: {said}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def alternate(kinds: Mapping[str, Callable[[], Cost]], runs: int) -> dict[str, Runs]:
    """Run each kind in turn, *runs* times, so that a slow moment falls on all alike."""
    costs: dict[str, list[Cost]] = {kind: [] for kind in kinds}
    for _ in range(runs):
        for kind, act in kinds.items():
            costs[kind].append(act())
    return {kind: Runs(tuple(each)) for kind, each in costs.items()}


def processor_seconds(process: int) -> float:
    """The CPU that *process* has taken until now, without its children."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wake_ups(process: int) -> dict[str, int]:
    """How often each thread of *process* has been woken, ever."""
    return {
        status.parent.name: count
        for status in Path(f"/proc/{process}/task").glob("*/status")
        for count in _values(status, "voluntary_ctxt_switches")
    }


def resident_bytes(process: int, *, is_peak: bool = False) -> int:
    """What *process* holds in memory, or the most that it ever held."""
    (kibibytes,) = _values(Path(f"/proc/{process}/status"), "VmHWM" if is_peak else "VmRSS")
    return kibibytes * 1024


def _values(status: Path, name: str) -> list[int]:
    lines = (line.split() for line in status.read_text().splitlines())
    return [int(words[1]) for words in lines if words[0] == f"{name}:"]
