"""The parts of the node; ``python -m rain_removal_ros.ros.node`` runs it."""
