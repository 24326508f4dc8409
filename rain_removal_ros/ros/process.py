"""Runs a node as a process that ends well on SIGINT or SIGTERM, once or twice, at any moment.

Signal handlers run at the worst moments, so there are none. The signals are blocked in all threads
from the first line on and fetched when convenient; later signals are still blocked. The executor
spins in a thread of its own, and no exception in a callback ends it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from rain_removal_ros.errors import RainRemovalError, SettingsError
from rain_removal_ros.runtime.allocator import keep_freed_memory
from rain_removal_ros.runtime.dds import remove_dead_segments

if TYPE_CHECKING:
    from rclpy.context import Context
    from rclpy.executors import Executor
    from rclpy.node import Node

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Runnable(Protocol):
    """A node that can be run as a process."""

    hopeless: str
    """Why it can never work with its configuration; empty otherwise."""
    end: Callable[[], object]
    """Called by the node when it is hopeless."""

    def autostart(self) -> None:
        """Called first, in the executor's thread."""
        ...

    def close(self) -> bool:
        """End everything; returns whether no thread is left."""
        ...

    def destroy_node(self) -> None: ...


def run(create: Callable[[], Runnable], *, about: str, args: Sequence[str] | None = None) -> int:
    """Run the node that ``create`` returns until a signal ends it; returns the exit code.

    ``create`` should do the imports: before it, only the standard library is loaded.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    keep_freed_memory()
    try:
        return _run(create, about, list(sys.argv if args is None else args))
    except RainRemovalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _run(create: Callable[[], Runnable], about: str, args: list[str]) -> int:
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    _parse(about, _without_ros_arguments(args))
    remove_dead_segments()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = create()
        node.end = lambda: os.kill(os.getpid(), signal.SIGTERM)
        spinner = Spinner(node, ended=lambda: os.kill(os.getpid(), signal.SIGTERM))
        spinner.executor.create_task(node.autostart)
        signal.sigwait(_ENDING)
        spinner.stop()
        all_ended = node.close()
        spinner.close()
        code = SettingsError.exit_code if node.hopeless else 0
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    if not all_ended:
        # Python would wait for, or crash in, a thread that hangs inside a library.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _without_ros_arguments(args: list[str]) -> list[str]:
    from rclpy.impl.implementation_singleton import rclpy_implementation
    from rclpy.utilities import remove_ros_args

    wrong = (
        rclpy_implementation.RCLInvalidROSArgsError,
        rclpy_implementation.UnknownROSArgsError,
    )
    try:
        return list(remove_ros_args(args))
    except wrong as error:
        reason = " ".join(str(error).split()).partition(", at /")[0]
        raise SettingsError(f"ROS arguments: {reason}") from error


def _parse(about: str, args: list[str]) -> None:
    """There are only ROS's own arguments; this is for --help and for typing errors."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s --ros-args ...",
        description=about,
        epilog="Everything is set by ROS parameters: --ros-args --params-file FILE -p NAME:=VALUE",
    )
    parser.parse_args(args[1:])


class Spinner:
    """The executor's thread. An exception in a callback is logged, and the next callback runs."""

    def __init__(
        self, node: Node | Runnable, *, ended: Callable[[], object] = lambda: None
    ) -> None:
        """``ended`` is called if something else shut the context down."""
        from rclpy.executors import SingleThreadedExecutor

        self._node: Node = node  # type: ignore[assignment]
        self._context: Context = self._node.context
        self._ended = ended
        self._stopping = False
        self.executor: Executor = SingleThreadedExecutor(context=self._context)
        self.executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="spin", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the current callback. The executor still accepts tasks, but never runs them."""
        self._stopping = True
        self.executor.create_task(lambda: None)  # wakes the executor
        self._thread.join()

    def close(self) -> None:
        """End for good: the executor accepts no more tasks (on Jazzy it raises)."""
        self.stop()
        self.executor.shutdown()

    def _spin(self) -> None:
        from rclpy.executors import ExternalShutdownException

        while not self._stopping:
            try:
                self.executor.spin_once()
            except ExternalShutdownException:
                break
            except Exception as error:  # noqa: BLE001 - no message may end the process
                if not self._context.ok():
                    break
                self._node.get_logger().error(
                    f"a callback raised {type(error).__name__}: {error}",
                    throttle_duration_sec=5.0,
                )
        if not self._stopping:
            self._ended()
