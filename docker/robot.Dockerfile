# The node on a robot, on the ROS base image, without torch. Not built yet by the project.
#
#   docker build -f docker/robot.Dockerfile --build-arg ROS_DISTRO=jazzy -t rain-removal-robot .
#   docker run --rm --net=host --ipc=host rain-removal-robot image:=/camera/image_raw
#
# Shared memory carries large images between containers only with --ipc=host, and as one user.
ARG ROS_DISTRO=jazzy

FROM ros:${ROS_DISTRO}-ros-base
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /workspace
COPY package.xml src/rain_removal_ros/
# What rosdep would install by pip comes into an environment beside the system's Python.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rosdep update --rosdistro "$ROS_DISTRO" \
    && rosdep install --from-paths src --ignore-src -y -t build -t exec \
        --skip-keys "python3-onnxruntime-pip python3-rosbags-pip python3-torch" \
    && rm -rf /var/lib/apt/lists/*
# The ranges of setup.py; NumPy and OpenCV stay the system's.
RUN python3 -m venv --system-site-packages /opt/environment \
    && /opt/environment/bin/pip install --no-cache-dir \
        "onnxruntime>=1.16" "rosbags>=0.10" "safetensors>=0.4"
COPY . src/rain_removal_ros
RUN set +u \
    && . "/opt/ros/$ROS_DISTRO/setup.bash" \
    && . /opt/environment/bin/activate \
    && python3 -m colcon build --packages-select rain_removal_ros \
    && rm -rf build log src
COPY docker/start /usr/local/bin/start
ENTRYPOINT ["/usr/local/bin/start"]
