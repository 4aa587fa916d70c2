"""``python -m cvmfs_gw``."""

import sys

from cvmfs_gw.cli import main

sys.exit(main())
