"""The table on the screen, the JSON, and the page with its charts."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rows import Row

_BAR_HEIGHT = 22
_LABEL_WIDTH = 300
_BAR_WIDTH = 380
_COLOURS = {"narpost": "#2f6f4f"}
_OTHER_COLOUR = "#b8b8b0"


def machine() -> dict[str, Any]:
    """What this was measured on."""
    nix = subprocess.run(["nix", "--version"], capture_output=True, text=True, check=True)
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "nix": nix.stdout.split()[-1],
    }


def show(rows: Sequence[Row]) -> None:
    """The table."""
    table = Table("work", "kind", "median", "CPU", "memory", "figure", "met")
    for row in rows:
        lines = max(len(row.runs), len(row.figures))
        runs = [*row.runs.items()] + [None] * (lines - len(row.runs))
        figures = [*row.figures] + [None] * (lines - len(row.figures))
        for number, (run, figure) in enumerate(zip(runs, figures, strict=True)):
            cost = _cost(run[1]) if run else ("", "", "")
            told = (
                (f"{figure.value:.3g} {figure.says}", _met(figure.is_met)) if figure else ("", "")
            )
            table.add_row("" if number else row.work, run[0] if run else "", *cost, *told)
        table.add_section()
    Console().print(table)


def as_json(rows: Sequence[Row]) -> str:
    """Everything, for programs."""
    return json.dumps(
        {
            "machine": machine(),
            "rows": [
                {
                    "work": row.work,
                    "runs": {kind: runs.as_json() for kind, runs in row.runs.items()},
                    "figures": [asdict(figure) for figure in row.figures],
                    "extra": dict(row.extra),
                }
                for row in rows
            ],
        },
        indent=2,
    )


def page(rows: Sequence[Row], folder: Path) -> None:
    """Write `benchmarks.md` and the charts that it shows into *folder*."""
    charts = folder / "charts"
    charts.mkdir(exist_ok=True)
    on = machine()
    parts = [
        "# Benchmarks",
        "",
        "Written by `make bench`, which anyone can run: medians of whole processes, run in turn.",
        f"This was Nix {on['nix']} and Python {on['python']} on {on['cores']} cores"
        f" ({on['processor']}).",
        "",
        "| work | figure | mark | reached |",
        "|---|---|---|---|",
    ]
    for row in rows:
        for number, figure in enumerate(row.figures):
            says, _, mark = figure.says.partition(" (")
            cells = (
                "" if number else row.work,
                f"{figure.value:.3g} {says}",
                mark.rstrip(")"),
                _met(figure.is_met),
            )
            parts.append(f"| {' | '.join(cells)} |")
    speeds = {part: speed for row in rows for part, speed in row.extra.get("speeds", {}).items()}
    parts += ["", "| part, on the same NAR of 500 MB | MB/s |", "|---|---|"]
    parts += [f"| {part} | {speed:,.0f} |" for part, speed in speeds.items()]
    for number, row in enumerate(row for row in rows if len(row.runs) > 1):
        name = f"{number + 1}.svg"
        (charts / name).write_text(chart(row))
        parts += ["", f"![{row.work}](charts/{name})"]
    limits = Path(__file__).with_name("limits.md").read_text()
    (folder / "benchmarks.md").write_text("\n".join(parts) + f"\n\n{limits}")


def chart(row: Row) -> str:
    """Bars of the medians, as SVG."""
    longest = max(runs.seconds for runs in row.runs.values())
    height = _BAR_HEIGHT * (len(row.runs) + 2)
    width = _LABEL_WIDTH + _BAR_WIDTH + 90
    bars = [
        f'<text x="0" y="16" font-weight="bold">{escape(row.work)}: seconds, less is better</text>'
    ]
    for number, (kind, runs) in enumerate(row.runs.items()):
        y = _BAR_HEIGHT * (number + 1) + 8
        length = max(1.0, runs.seconds / longest * _BAR_WIDTH)
        colour = _COLOURS.get(kind.partition("'")[0].partition(" ")[0], _OTHER_COLOUR)
        bars += [
            f'<text x="{_LABEL_WIDTH - 8}" y="{y + 14}" text-anchor="end">{escape(kind)}</text>',
            f'<rect x="{_LABEL_WIDTH}" y="{y}" width="{length:.1f}" height="16" fill="{colour}"/>',
            f'<text x="{_LABEL_WIDTH + length + 6:.1f}" y="{y + 14}">{runs.seconds:.3g}</text>',
        ]
    inside = "\n".join(bars)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' font-family="sans-serif" font-size="13">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{inside}\n</svg>\n'
    )


def _cost(runs: Any) -> tuple[str, str, str]:  # the three columns of a Runs
    return (
        f"{runs.seconds:.3g} s",
        f"{runs.cpu_seconds:.3g} s" if runs.cpu_seconds else "",
        f"{runs.peak_bytes / (1 << 20):.0f} MiB" if runs.peak_bytes else "",
    )


def _met(is_met: bool) -> str:
    return "yes" if is_met else "no"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().split("\n"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
