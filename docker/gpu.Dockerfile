# Training, measuring and the node on an NVIDIA GPU. Not built yet by the project, and no GPU has
# run it.
#
#   docker build -f docker/gpu.Dockerfile -t rain-removal-gpu .
#   docker run --rm --gpus all -v "$PWD/results:/source/runs" rain-removal-gpu scripts/gpu
#
# The base is CUDA with torch; ROS comes as wheels, which exist for x86-64. On a Jetson, take an image
# of your JetPack that has torch 2.5 or later, and ROS if you want the node:
#
#   docker build -f docker/gpu.Dockerfile --build-arg BASE_IMAGE=IMAGE --build-arg EXTRAS=torch,train ...
ARG BASE_IMAGE=pytorch/pytorch:2.9.1-cuda12.8-cudnn9-runtime

# hadolint ignore=DL3006
FROM ${BASE_IMAGE}
ARG EXTRAS=torch,train,ros,dev
ARG ROS=kilted
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# torch is the image's: no constraint names another.
RUN grep -v "^torch==" constraints.txt > /tmp/constraints.txt \
    && python3 -m pip install --no-cache-dir -c /tmp/constraints.txt \
        -c "constraints-${ROS}.txt" -e ".[${EXTRAS}]"
CMD ["rain-removal", "--help"]
