"""``python -m rain_removal_ros`` runs ``rain-removal`` where the script is not on the path."""

import sys

from rain_removal_ros.cli import main

sys.exit(main())
