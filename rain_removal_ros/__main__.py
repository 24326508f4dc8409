"""``python -m rain_removal_ros`` is ``rain-removal``, for where the script is not on the path."""

import sys

from rain_removal_ros.cli import main

sys.exit(main())
