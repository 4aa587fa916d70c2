"""Types of the command line."""

from __future__ import annotations

import argparse

Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
"""What a command adds its parser to."""
