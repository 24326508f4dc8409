"""Tools of the ROS tests: nodes under test, cameras and subscribers, connected by DDS."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from rain_removal_ros import checkpoints, codec, networks
from rain_removal_ros.ros.process import Spinner
from rain_removal_ros.runtime import dds

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = Path(__file__).parent / "networks"
PATIENCE_S = 120.0
"""How long tests wait: on a busy machine a process takes half a minute to start."""
_GRACE_S = 10.0


def _is_jazzy() -> bool:
    try:
        return importlib.metadata.version("ros-rclpy").startswith("7.")
    except importlib.metadata.PackageNotFoundError:
        return os.environ.get("ROS_DISTRO") == "jazzy"


JAZZY = _is_jazzy()

# The middleware reads these when a context begins, here and in processes started from here.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ[dds.profile_variable("jazzy" if JAZZY else "")] = str(ROOT / "config" / "fastdds.xml")


def until(happened: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Poll until something has happened that notifies nobody."""
    deadline = time.monotonic() + timeout_s
    while not (result := happened()):
        assert time.monotonic() < deadline, f"still not after {timeout_s:g} s: {what}"
        time.sleep(0.01)
    return result


def flags(parameters: Mapping[str, object]) -> list[str]:
    """Parameters as command-line arguments."""
    return [word for pair in parameters.items() for word in ("-p", "{}:={}".format(*pair))]


@contextmanager
def networks_of_tests() -> Iterator[None]:
    """Lets this process find the tests' own networks, as processes started by a desk do."""
    networks.__path__.append(str(NETWORKS))
    try:
        yield
    finally:
        networks.__path__.remove(str(NETWORKS))


class Inbox:
    """Collects what a subscription receives."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self._more = threading.Condition()

    def __call__(self, message: Any) -> None:
        with self._more:
            self.messages.append(message)
            self._more.notify_all()

    def wait(
        self, found: Callable[[Any], bool] = lambda _: True, timeout_s: float = PATIENCE_S
    ) -> Any:
        """The first message that matches; waits for it if it has not come yet."""
        with self._more:
            done = self._more.wait_for(lambda: any(map(found, self.messages)), timeout_s)
            assert done, f"nothing of the kind in {timeout_s:g} s among {len(self.messages)}"
            return next(filter(found, self.messages))

    def count(self, number: int, timeout_s: float = PATIENCE_S) -> list[Any]:
        """All messages, as soon as there are ``number`` of them."""
        with self._more:
            done = self._more.wait_for(lambda: len(self.messages) >= number, timeout_s)
            assert done, f"{len(self.messages)} of {number} in {timeout_s:g} s"
            return list(self.messages)

    def any_within(self, timeout_s: float) -> bool:
        """Whether a message comes in this time."""
        with self._more:
            return self._more.wait_for(lambda: bool(self.messages), timeout_s)

    def clear(self) -> None:
        with self._more:
            self.messages.clear()


def until_frames_pass(camera: Any, inbox: Inbox, timeout_s: float = 60.0) -> None:
    """Publish frames until one comes out."""
    inbox.clear()
    until(
        lambda: camera.publish(message(picture())) or inbox.messages, "until_frames_pass", timeout_s
    )


class Desk:
    """A ROS domain of one test, with its cameras, subscribers and nodes under test."""

    def __init__(self, domain: int) -> None:
        self.domain = domain
        self.context = Context()
        self.context.init(args=[], domain_id=domain)
        self.tools = Node("tools", context=self.context, use_global_arguments=False)
        self._tools = Spinner(self.tools)
        self._spinners: list[Spinner] = []
        self._nodes: list[Any] = []
        self._processes: list[subprocess.Popen[str]] = []

    # --- Nodes under test ---

    def derainer(
        self, parameters: Mapping[str, Any] | None = None, *, remap: Mapping[str, str] | None = None
    ) -> Any:
        """A node that spins in this process, started as ``derain_node`` starts it."""
        from rain_removal_ros.ros.node.derain_node import DerainNode

        rules = [word for pair in (remap or {}).items() for word in ("-r", ":=".join(pair))]
        node = DerainNode(
            context=self.context,
            use_global_arguments=False,
            cli_args=["--ros-args", *rules],
            parameter_overrides=[
                Parameter(name, value=value) for name, value in (parameters or {}).items()
            ],
        )
        spinner = Spinner(node)
        self._spinners.append(spinner)
        self._nodes.append(node)
        spinner.executor.create_task(node.autostart)
        return node

    def process(
        self,
        *arguments: str,
        module: str = "rain_removal_ros.ros.node",
        log: Path | None = None,
        **environment: str,
    ) -> subprocess.Popen[str]:
        """A node in a process of its own."""
        return self.python("-m", module, "--ros-args", *arguments, log=log, **environment)

    def python(
        self, *arguments: str, log: Path | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        """A Python process. One that prints much needs a log: it would block as soon as a pipe that
        nobody reads is full, at 64 kB."""
        said: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        if log is not None:
            said = {"stdout": os.open(log, os.O_WRONLY | os.O_CREAT), "stderr": subprocess.STDOUT}
        started = subprocess.Popen(
            [sys.executable, *arguments],
            env={
                **os.environ,
                "ROS_DOMAIN_ID": str(self.domain),
                "RAIN_REMOVAL_NETWORKS": str(NETWORKS),
                "PYTHONUNBUFFERED": "1",
                **environment,
            },
            text=True,
            **said,
        )
        if log is not None:
            os.close(said["stdout"])
        self._processes.append(started)
        return started

    # --- Cameras and subscribers ---

    def publisher(self, topic: str = "image", kind: Any = Image, *, reliable: bool = True) -> Any:
        """A camera; reliable by default, so that no frame of a test is lost on the way."""
        return self.tools.create_publisher(kind, topic, _qos(reliable, 10))

    def inbox(
        self, topic: str = "image_derained", kind: Any = Image, *, reliable: bool = True
    ) -> Inbox:
        """What a new subscription receives."""
        inbox = Inbox()
        self.tools.create_subscription(kind, topic, inbox, _qos(reliable, 100))
        return inbox

    def listened(self, publisher: Any) -> None:
        """Wait until a camera has a subscriber."""
        until(publisher.get_subscription_count, f"a subscriber of {publisher.topic_name}")

    def call(self, kind: Any, name: str, request: Any = None, timeout_s: float = PATIENCE_S) -> Any:
        """Call a service and return its answer."""
        client = self.tools.create_client(kind, name)
        assert client.wait_for_service(timeout_s), f"no service {name}"
        future = client.call_async(request or kind.Request())
        answered = threading.Event()
        future.add_done_callback(lambda _: answered.set())
        assert answered.wait(timeout_s), f"no answer of {name}"
        self.tools.destroy_client(client)
        return future.result()

    def close(self) -> None:
        # A process that is killed leaves 64 MiB of shared memory behind, so a signal comes first.
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.communicate(timeout=_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        for spinner, node in zip(self._spinners, self._nodes, strict=True):
            spinner.stop()
            node.close()
            spinner.close()
            node.destroy_node()
        self._tools.close()
        self.tools.destroy_node()
        self.context.try_shutdown()


def _qos(reliable: bool, depth: int) -> QoSProfile:
    policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(depth=depth, reliability=policy)


def picture(seed: int = 0, *, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture of noise, different for every seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def message(
    image: np.ndarray, *, stamp_ns: int | None = None, encoding: str = "rgb8", frame: str = "camera"
) -> Image:
    """A camera's message, stamped with the current time if no stamp is given."""
    built = Image()
    built.header.frame_id = frame
    codec.set_stamp(built.header, time.time_ns() if stamp_ns is None else stamp_ns)
    codec.write_image(built, image, encoding=encoding, header=built.header)
    return built


def pixels(received: Image) -> np.ndarray:
    """The RGB picture in a message."""
    return codec.decode(received).image


class Faulty:
    """A network that fails on command."""

    def __init__(self, folder: Path) -> None:
        self._orders = folder / "orders"
        self._folder = folder
        self.order("")
        self.weights = self.saved()

    def saved(self, **config: Any) -> Path:
        """Weights of a network with another config."""
        name = "-".join(f"{key}{value}" for key, value in config.items()) or "plain"
        path = self._folder / f"{name}.safetensors"
        checkpoints.save(path, networks.create("faulty", orders=str(self._orders), **config), {})
        return path

    def order(self, what: str) -> None:
        """Tell the network what to do from now on."""
        draft = self._orders.with_suffix(".draft")
        draft.write_text(what)
        draft.replace(self._orders)
