"""The ROS 2 side: the one subpackage that imports rclpy.

What runs the network knows nothing of ROS, and is used here as the command line uses it. The node
adds what a robot needs: topics, parameters, a life cycle, diagnostics, and the will to go on.
"""
