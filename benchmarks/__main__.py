"""`make bench`: narpost beside the Nix that is installed, in one run."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from benchmarks import report
from benchmarks.rows import Bench, Row
from benchmarks.targets import Buckets, far
from support import radosgw

FAR_SECONDS = 0.02


def main() -> None:
    """Run the rows, and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each kind")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--page", type=Path, help="a folder to write benchmarks.md into")
    arguments = parser.parse_args()
    # In memory where that is to be had: a disk's moods are not what is compared.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        rows = list(measured(Path(folder).resolve(), arguments.runs, arguments.only))
    report.show(rows)
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(report.as_json(rows))
    if arguments.page:
        report.page(rows, arguments.page)


def measured(folder: Path, runs: int, only: str) -> Iterator[Row]:
    """One row after another; those for S3 only where a server is to be had."""
    bench, console = Bench(folder, runs), Console(stderr=True)
    names = ("hook", "small", "documents", "large", "defaults", "nothing_to_do", "start", "idle")
    rows: dict[str, Callable[[], Row]] = {name: getattr(bench, name) for name in names}
    for name, row in rows.items():
        if only in name:
            console.print(f"measuring: {name}")
            yield row()
    if missing := radosgw.missing_programs():
        console.print(f"no S3 server here, for want of {', '.join(missing)}")
        return
    with radosgw.running(folder / "s3") as server:
        near = Buckets(server, server.endpoint)
        if only in "bucket":
            console.print("measuring: bucket")
            yield bench.bucket(near)
        if only in "far_bucket":
            console.print("measuring: far_bucket")
            with far(server.endpoint, FAR_SECONDS) as road:
                yield bench.far_bucket(Buckets(server, road), FAR_SECONDS)
        if only in "planning":
            console.print("measuring: planning")
            with far(server.endpoint, 0.005) as road, far(server.endpoint, 0.05) as long_road:
                roads = {0.005: Buckets(server, road), 0.05: Buckets(server, long_road)}
                yield bench.planning({0.0: near, **roads})


if __name__ == "__main__":
    main()
