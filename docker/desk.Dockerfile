# The command line on a desk, without ROS and without torch. Not built yet by the project.
#
#   docker build -f docker/desk.Dockerfile -t rain-removal .
#   docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/data" -w /data rain-removal image in.jpg -o out.jpg
#
# With --build-arg EXTRAS=torch it has all networks, and several GB.
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON_VERSION}-slim-bookworm
ARG EXTRAS=""
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
RUN pip install --no-cache-dir -c /wheels/constraints.txt \
        "$(ls /wheels/rain_removal_ros-*.whl)${EXTRAS:+[$EXTRAS]}" \
    && rm -r /wheels
ENV XDG_CACHE_HOME=/tmp/cache
ENTRYPOINT ["rain-removal"]
CMD ["--help"]
