"""Records topics as a process of its own: ``python -m rain_removal_ros.ros.tools.recorder``.

Each message is recorded with the time at which it was sent, not received, so that the publisher is
measured. From the node's /diagnostics it prints "ready" once the network is loaded, and "settled"
when all frames are accounted for and none has arrived since the last report. It ends on SIGINT or
SIGTERM.
"""

from __future__ import annotations

import argparse
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rain_removal_ros.bags import Channel, create
from rain_removal_ros.bags.messages import standard
from rain_removal_ros.bags.node_bench import diagnosis
from rain_removal_ros.errors import RainRemovalError

DIAGNOSTICS = "/diagnostics"
_DIAGNOSTICS_TYPE = "diagnostic_msgs/msg/DiagnosticArray"
_DEPTH = 100


def main(args: Sequence[str] | None = None) -> int:
    """Record until a signal ends it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "topics", nargs="+", metavar="TOPIC=TYPE", help="/image=sensor_msgs/msg/Image"
    )
    parsed = parser.parse_args(args)
    ending = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        channels = [standard(*topic.split("=", 1)) for topic in parsed.topics]
        _record(parsed.output, [*channels, standard(DIAGNOSTICS, _DIAGNOSTICS_TYPE)], ending)
    except RainRemovalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _record(out: Path, channels: list[Channel], ending: tuple[signal.Signals, ...]) -> None:
    import rclpy
    from rclpy.node import Node
    from rclpy.signals import SignalHandlerOptions

    from rain_removal_ros.ros.process import Spinner

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    received: queue.Queue[tuple[Channel, int, bytes] | None] = queue.Queue()
    try:
        node = Node("bag_recorder", use_global_arguments=False)
        for channel in channels:
            _subscribe(node, channel, received)
        spinner = Spinner(node)
        writer = threading.Thread(target=_write, args=(out, channels, received), name="write")
        writer.start()
        signal.sigwait(ending)
        spinner.close()
        received.put(None)
        writer.join()
        node.destroy_node()
    finally:
        rclpy.try_shutdown()


def _subscribe(
    node: Any, channel: Channel, received: queue.Queue[tuple[Channel, int, bytes] | None]
) -> None:
    from rclpy.qos import QoSProfile

    from rain_removal_ros.ros.tools.player import message_class

    def arrived(data: bytes, info: Any) -> None:
        received.put((channel, int(info["source_timestamp"]), data))

    node.create_subscription(
        message_class(channel.msgtype), channel.topic, arrived, QoSProfile(depth=_DEPTH), raw=True
    )


def _write(
    out: Path,
    channels: list[Channel],
    received: queue.Queue[tuple[Channel, int, bytes] | None],
) -> None:
    listener = _Listener()
    with create(out, force=True) as output:
        for channel in channels:
            output.add(channel)
        while (item := received.get()) is not None:
            channel, stamp_ns, data = item
            output.write(channel, stamp_ns, data)
            if channel.topic == DIAGNOSTICS:
                for word in listener.words(diagnosis(channel, data)):
                    print(word, flush=True)


class _Listener:
    """Turns diagnostics into the words "ready" and "settled"."""

    def __init__(self) -> None:
        self._loaded = False
        self._counts: tuple[int, int] | None = None

    def words(self, told: dict[str, str]) -> list[str]:
        words = []
        if not self._loaded and told.get("network", "none") != "none":
            self._loaded = told.get("loading") == "false"
            words += ["ready"] * self._loaded
        counts = _received_and_done(told)
        if counts == self._counts and counts[0] == counts[1]:
            words.append("settled")
        self._counts = counts
        return words


def _received_and_done(told: dict[str, str]) -> tuple[int, int]:
    done = [n for key, n in told.items() if key == "published" or key.startswith("dropped: ")]
    return int(told.get("received", 0)), sum(map(int, done))


if __name__ == "__main__":
    sys.exit(main())
