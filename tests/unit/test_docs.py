"""What the docs say of the program is what the program says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
LINK = re.compile(r"\]\(([^)#:]+)\)")


def test_the_page_of_commands_is_up_to_date(tmp_path: Path) -> None:
    """`make docs` was run since a command's help has changed."""
    page = tmp_path / "commands.md"

    subprocess.run([sys.executable, ROOT / "tools/commands_page.py", page], check=True, timeout=60)

    assert page.read_text() == (ROOT / "docs/commands.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link to a file of the project finds it."""
    targets = LINK.findall(page.read_text())

    assert [target for target in targets if not (page.parent / target).exists()] == []
