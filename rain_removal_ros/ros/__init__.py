"""The ROS 2 side: the only subpackage that imports rclpy.

The network and everything around it are free of ROS, and are used here as on the command line. The
node adds what a robot needs: topics, parameters, a life cycle, diagnostics and fault handling.
"""
