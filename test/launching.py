"""Runs launch files for tests, by launch_pytest or in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    IncludeLaunchDescription,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events.process import ProcessExited, ProcessStarted
from ros.desk import ROOT, Desk, until

LAUNCH = ROOT / "scripts" / "launch"


class Started:
    """A launch file that launch_pytest runs beside a test, and the processes it started."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self._desk = desk
        self._folder = folder
        self._ids: list[tuple[str, int]] = []
        self.exits: list[tuple[str, int]] = []
        """Processes that ended, in order, and their exit codes."""

    def file(self, name: str, **arguments: str | Path) -> LaunchDescription:
        """The launch file with its arguments, in the test's domain."""
        given = [(key, str(value)) for key, value in arguments.items()]
        return LaunchDescription(
            [
                SetEnvironmentVariable("ROS_DOMAIN_ID", str(self._desk.domain)),
                SetEnvironmentVariable("ROS_LOG_DIR", str(self._folder)),
                RegisterEventHandler(OnProcessStart(on_start=self._note_start)),
                RegisterEventHandler(OnProcessExit(on_exit=self._note_exit)),
                IncludeLaunchDescription(str(ROOT / "launch" / name), launch_arguments=given),
            ]
        )

    def node(self, namespace: str = "") -> int:
        """The process id of the running node, in this namespace if one is given."""

        def find() -> int:
            running = [pid for _, pid in self._ids if is_node(pid, namespace)]
            return running[-1] if running else 0

        return int(until(find, "the node's process"))

    def ended_well(self) -> bool:
        """Whether all processes that were started have ended with exit code 0."""
        return len(self.exits) == len(self._ids) > 0 and not any(code for _, code in self.exits)

    def _note_start(self, event: ProcessStarted, context: LaunchContext) -> None:
        self._ids.append((event.process_name, event.pid))

    def _note_exit(self, event: ProcessExited, context: LaunchContext) -> None:
        self.exits.append((event.process_name, event.returncode))


class Launcher:
    """Runs launch files in processes of their own, to see how they end."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self._desk = desk
        self._folder = folder
        self._running: list[subprocess.Popen[str]] = []

    def start(self, file: str, *arguments: str) -> subprocess.Popen[str]:
        with (self._folder / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, str(LAUNCH), str(ROOT / "launch" / file), *arguments],
                env={
                    **os.environ,
                    "ROS_DOMAIN_ID": str(self._desk.domain),
                    "ROS_LOG_DIR": str(self._folder),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._running.append(process)
        return process

    def node(self) -> int:
        """The process id of the node that the last launch file started."""
        launch = self._running[-1].pid

        def find() -> int:
            children = Path(f"/proc/{launch}/task/{launch}/children").read_text().split()
            return next((int(child) for child in children if is_node(int(child))), 0)

        node = int(until(find, "the node's process"))
        # launch fails if it is interrupted before it has noted its child.
        until(lambda: f"process started with pid [{node}]" in self.said(), "launch's word of it")
        return node

    def said(self) -> str:
        """Everything that the launch files printed."""
        return (self._folder / "log").read_text()

    def interrupt(self) -> int:
        """End the last launch file as Ctrl-C does, and return its exit code."""
        os.killpg(self._running[-1].pid, signal.SIGINT)
        return self._running[-1].wait(60)

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def is_node(process: int, namespace: str = "") -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except OSError:
        return False
    here = not namespace or f"__ns:={namespace}" in words
    return "rain_removal_ros.ros.node" in words and here
