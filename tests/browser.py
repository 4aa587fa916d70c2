"""A real browser without a window, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS: Final = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")


def browser_command(profile: Path, *options: str) -> list[str]:
    """How to start the browser with a fresh *profile* folder; skips the test where there is none."""
    browser = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"not installed: none of {', '.join(_NAMES)}")
    return [browser, *_OPTIONS, f"--user-data-dir={profile}", *options]


def rendered(profile: Path, url: str, milliseconds: int) -> str:
    """The document at *url* as it is when the page's clock has gone on for so long."""
    command = browser_command(profile, "--dump-dom", f"--virtual-time-budget={milliseconds}", url)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
