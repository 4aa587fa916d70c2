"""``python -m cvmfs_notify`` is ``cvmfs-notify``."""

import sys

from cvmfs_notify.cli import main

sys.exit(main())
