"""What the node is made of; ``python -m rain_removal_ros.ros.node`` runs it."""
