"""Takes rain out of what a robot sees: a ROS 2 node, and the same code path as a command line."""

__version__ = "0.1.0"
