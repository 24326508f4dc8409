"""The lifecycle node: it connects the parts and handles transitions, faults and parameters.

All of its state changes in the executor's thread. The worker and the loader have threads of their
own and report back through tasks of the executor. The worker takes orders between two frames.
"""

from __future__ import annotations

import functools
import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from rain_removal_ros.degradation import FULL, Backoff, Rung
from rain_removal_ros.engines import builds_stages
from rain_removal_ros.errors import CheckpointError, RainRemovalError, SettingsError
from rain_removal_ros.ros.node import diagnostics
from rain_removal_ros.ros.node.loader import Loader, LoadRequest
from rain_removal_ros.ros.node.mailbox import Mailbox
from rain_removal_ros.ros.node.pipeline import Pipeline
from rain_removal_ros.ros.node.statistics import NEWER, Statistics
from rain_removal_ros.ros.node.topics import Topics
from rain_removal_ros.ros.node.watchdog import Watchdog
from rain_removal_ros.ros.node.worker import Worker
from rain_removal_ros.ros.parameters import Parameters
from rain_removal_ros.runtime import native
from rain_removal_ros.runtime.allocator import give_back_freed_memory
from rain_removal_ros.runtime.devices import check_device
from rain_removal_ros.settings import Settings

if TYPE_CHECKING:
    from rain_removal_ros.engines import LoadedEngine

_UPKEEP_S = 0.1
_LOOK_AROUND_S = 1.0
_PATIENCE_S = 1.0
"""How long deactivation waits for the current frame."""
_REST_S = 0.2
"""A network is loaded once its settings have not changed for this long."""
_MOST_HUNG = 3
"""While more calls of the network than this hang, loading is not tried again."""
_FORGIVEN_S = 60.0
"""After this time without a hang, the next wait starts from the beginning again."""
_QUIET_S = 5.0
"""The time between two log lines from one place."""
_BETWEEN_TRIMS_S = 1.0
"""The time between two returns of memory to the system, each of which takes up to 50 ms."""


_Transition = Callable[["DerainNode", LifecycleState], TransitionCallbackReturn]


def _told(transition: _Transition) -> _Transition:
    """Log what a transition raises: rclpy only notes that it failed."""

    @functools.wraps(transition)
    def wrapped(self: DerainNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception as error:
            name = transition.__name__.removeprefix("on_")
            kind = "" if isinstance(error, RainRemovalError) else f"{type(error).__name__}: "
            self.get_logger().error(f"cannot {name}: {kind}{error}")
            raise

    return wrapped


class DerainNode(LifecycleNode):
    """Derains the images of one or more cameras while it is active."""

    def __init__(self, name: str = "derain", **options: Any) -> None:
        super().__init__(name, automatically_declare_parameters_from_overrides=True, **options)
        self._declared = Parameters(self, self._changed)
        self._cameras: list[Topics] = []
        self.statistics = [Statistics() for _ in self.settings.input.cameras or ("",)]
        self._mailbox = Mailbox()
        self._loader = Loader(self)
        self._worker: Worker | None = None
        self._hung: list[Worker] = []
        self._engine: LoadedEngine | None = None
        self._trouble = ""
        self._faults: Counter[str] = Counter()
        self.hopeless = ""
        """Why this node can never work with its configuration; empty otherwise."""
        self.end: Callable[[], object] = lambda: None
        """Called when the node is hopeless; ``ros.process`` ends the process."""
        self._hung_at = 0.0
        self._trimmed_at = 0.0
        self._backoff = Backoff()
        self._was_ready = False
        """Whether a network has run. From then on, a bad change leaves the old one in use."""
        self._enabled = True
        self.create_service(Trigger, "~/reset_state", self._reset_state)
        self.create_service(SetBool, "~/enable", self._enable)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Simulated time may stop, and a watchdog may not.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(self.settings.node.diagnostics_s, self._report, clock=steady)
        self.create_timer(_UPKEEP_S, self._watch_over, clock=steady)
        self.create_timer(_LOOK_AROUND_S, self._look_around, clock=steady)
        self._answer_invalid_transitions()
        if advice := native.advice():
            self.get_logger().warning(f"This package was {advice}.")

    @property
    def settings(self) -> Settings:
        """As they are now."""
        return self._declared.settings

    @property
    def cameras(self) -> Sequence[Topics]:
        """The cameras' topics; empty before the node is configured."""
        return self._cameras

    @property
    def engine(self) -> LoadedEngine | None:
        """The network in use."""
        return self._engine

    @property
    def active(self) -> bool:
        """Whether frames are being processed."""
        return self._worker is not None

    @property
    def trouble(self) -> str:
        """What is wrong with the network, in one line; empty if nothing is."""
        return self._trouble

    @property
    def rung(self) -> Rung:
        """The current rung of degradation."""
        return self._worker.pipeline.cameras.rung if self._worker is not None else FULL

    # --- Life cycle --------------------------------------------------------------------------

    def autostart(self) -> None:
        """Configure and activate, if the settings say so."""
        if not self.settings.node.autostart:
            return
        if self.trigger_configure() is TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()
        else:
            self._give_up("it cannot be configured")

    def _give_up(self, why: str) -> None:
        """End a node that nobody manages and that cannot work: restarting would not help."""
        if self.settings.node.autostart:
            self.hopeless = why
            self.end()

    @_told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Set up the topics and start loading the network; neither waits for the other."""
        check_device(self.settings.engine.device)
        names = self.settings.input.cameras or ("",)
        self._cameras = [self._camera(index, name) for index, name in enumerate(names)]
        for camera in self._cameras:
            self.get_logger().info(f"{camera.describe(self.settings)}; {_wanted(self.settings)}")
        self._load()
        return super().on_configure(state)

    @_told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self._engine is None and self._loader.job is None:
            self._load()  # freed by a deactivation
        self._work()
        self._look_around()
        return super().on_activate(state)

    @_told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._rest()
        return super().on_deactivate(state)

    @_told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._close()
        return super().on_cleanup(state)

    @_told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._close()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Whatever failed, the node can be configured again."""
        self._close()
        super().on_error(state)
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> bool:
        """End everything; returns whether no thread is left."""
        self._close()
        return not any(worker.alive for worker in self._hung) and not self._loader.running

    def _close(self) -> None:
        self._rest()
        for camera in self._cameras:
            camera.close()
        self._cameras = []

    def _camera(self, index: int, name: str) -> Topics:
        return Topics(
            self,
            name,
            self.settings,
            arrived=lambda message, missing: self._arrived(index, message, missing),
            lost=self.statistics[index].lost,
            matched=self._look_around,
        )

    def _arrived(self, index: int, message: Any, missing: int) -> None:
        self.statistics[index].received(missing)
        # A network that is being loaded needs the size before frames are decoded. A header can
        # announce any size, so it counts only if there are data for it.
        if isinstance(message, Image) and 0 < message.height * message.width <= len(message.data):
            self.statistics[index].size = message.height, message.width
        if self._mailbox.put(index, message):
            self.statistics[index].dropped(NEWER)

    # --- Worker ------------------------------------------------------------------------------

    def _work(self, why_not: str = "loading") -> None:
        """Start a worker, with the network if there is one."""
        watch = Watchdog()
        pipeline = Pipeline(
            list(zip(self._cameras, self.statistics, strict=True)), self.settings, self, watch
        )
        pipeline.cameras.do_without(why_not)
        pipeline.cameras.enable(self._enabled)
        self._worker = Worker(self._mailbox, pipeline, watch)
        if (engine := self._engine) is not None:
            self._worker.order(lambda pipeline: pipeline.use(engine))
        self._worker.start()

    def _rest(self) -> None:
        """Stop working and free the memory of everything that can be loaded again."""
        for camera in self._cameras:
            camera.ignore()
        if self._worker is not None:
            if not self._worker.stop(_PATIENCE_S) and self._worker.watch.abandon_after(0):
                self._leave_behind(self._worker, "deactivated")
            self._worker = None
        for index in self._mailbox.clear():
            self.statistics[index].dropped("deactivated")
        self._loader.cancel()
        self._engine = None
        self._trouble = ""
        _free_memory()

    def _watch_over(self) -> None:
        """Replace a worker that does not return from a frame."""
        limit_s = self.settings.safety.watchdog_s
        self._loader.watch_over()
        if (worker := self._worker) is None:
            return
        self._give_back_memory(worker)
        if not limit_s or not worker.watch.abandon_after(limit_s):
            self._make_sure_of_a_network()
            return
        self._leave_behind(worker, "hung")
        self._faults["hung"] += 1
        guilty = "the network" if worker.watch.in_network else "decoding or publishing a frame"
        trouble = f"{guilty} took longer than safety.watchdog_s ({limit_s:g} s)"
        if worker.watch.in_network:
            self._engine = None
            self._trouble = trouble
        for statistics in self.statistics:
            statistics.fault("hung", trouble)
        self._work("hung")
        without = "without it" if worker.watch.in_network else "without that one"
        self.get_logger().error(f"{trouble}; frames go on {without}")

    def _give_back_memory(self, worker: Worker) -> None:
        """Return freed memory to the system after unusual frames; otherwise it is kept for the next
        ones.
        """
        now = time.monotonic()
        if worker.pipeline.unusual and now - self._trimmed_at > _BETWEEN_TRIMS_S:
            worker.pipeline.unusual = False
            self._trimmed_at = now
            give_back_freed_memory()

    def _make_sure_of_a_network(self) -> None:
        """Load a network if there is none, unless too many calls of it still hang."""
        if self._engine is not None:
            if time.monotonic() - self._hung_at > _FORGIVEN_S:
                self._backoff.reset()
        elif self._loader.job is None:
            self._hung = [worker for worker in self._hung if worker.alive]
            if len(self._hung) <= _MOST_HUNG:
                self._load(delay_s=self._backoff.wait(self.settings.safety.retry_s))

    def _leave_behind(self, worker: Worker, why: str) -> None:
        worker.pipeline.give_up(why)
        self._hung.append(worker)
        self._hung_at = time.monotonic()

    def _look_around(self) -> None:
        """Subscribe to a camera only while somebody wants its images."""
        if self._worker is None:
            return
        for camera in self._cameras:
            if camera.demand() or self.settings.output.keep_warm:
                wanted = self.settings.input
                camera.listen(camera.offered(wanted.transport), wanted.reliability)
            else:
                camera.ignore()

    # --- Network -----------------------------------------------------------------------------

    def _load(self, *, delay_s: float = 0.0) -> None:
        self._loader.request(self.settings, delay_s=delay_s)

    def sizes(self) -> list[tuple[int, int]]:
        """Called in the loader's thread."""
        return sorted({size for statistics in self.statistics if (size := statistics.size)})

    def loaded(self, job: LoadRequest, engine: LoadedEngine) -> None:
        """Called in the loader's thread."""
        self._later(self._take_over, job, engine)

    def failed(self, job: LoadRequest, error: Exception, retry_in_s: float) -> None:
        """Called in the loader's thread."""
        self._later(self._note_failure, job, error, retry_in_s)

    def _take_over(self, job: LoadRequest, engine: LoadedEngine) -> None:
        if job is not self._loader.job:
            return
        self._loader.finished()
        self._engine = engine
        self._was_ready = True
        self._trouble = ""
        if self._worker is not None:
            self._worker.order(lambda pipeline: pipeline.use(engine))
        info = engine.info
        self.get_logger().info(
            f"ready: {info.name} runs on {info.device} in {info.precision} ({info.engine})"
        )
        if engine.note:
            self.get_logger().warning(engine.note)
        for line in info.cautions.lines(info.name):
            self.get_logger().warning(line)

    def _note_failure(self, job: LoadRequest, error: Exception, retry_in_s: float) -> None:
        if job is not self._loader.job:
            return
        self._faults["not loaded"] += 1
        self._trouble = f"cannot load the network: {error}"
        if not self._was_ready and isinstance(error, (CheckpointError, SettingsError)):
            self.get_logger().error(self._trouble)
            self._give_up(self._trouble)
            return
        meanwhile = "the old one stays" if self._engine else "frames go on without one"
        self.get_logger().error(
            f"{self._trouble}; {meanwhile}, trying again in {retry_in_s:.1f} s",
            throttle_duration_sec=_QUIET_S,
        )

    # --- Called by the pipeline, in the worker's thread ----------------------------------------

    def now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def say(self, text: str) -> None:
        self.get_logger().warning(text, throttle_duration_sec=_QUIET_S)

    def broken(self, reason: str, retry_in_s: float) -> None:
        self._later(self._replace, reason, retry_in_s)

    def _replace(self, reason: str, retry_in_s: float) -> None:
        if self._worker is None:
            return
        self._faults["failed"] += 1
        self._engine = None
        self._trouble = f"the network failed: {reason}"
        self._load(delay_s=retry_in_s)

    def _later(self, task: Any, *arguments: Any) -> None:
        """Call something in the executor's thread."""
        if self.executor is not None:
            self.executor.create_task(task, *arguments)

    # --- Parameters and services ---------------------------------------------------------------

    def _changed(self, before: Settings, settings: Settings) -> None:
        if self._network_of(before) != self._network_of(settings) and self._cameras:
            self._load(delay_s=_REST_S)
        if self._worker is not None:
            self._worker.order(lambda pipeline: pipeline.apply(settings))
        if (before.input, before.output) != (settings.input, settings.output):
            self._look_around()

    @staticmethod
    def _network_of(settings: Settings) -> tuple[Any, ...]:
        """The settings that require loading again when they change."""
        network, engine = settings.network, settings.engine
        stages = network.stages if builds_stages(engine.name) else 0
        return network.name, network.weights, stages, engine

    def _reset_state(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success = self._worker is not None
        response.message = "reset" if response.success else "the node is not active"
        if self._worker is not None:
            self._worker.order(lambda pipeline: pipeline.cameras.reset("asked to"))
        return response

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = on = bool(request.data)
        if self._worker is not None:
            self._worker.order(lambda pipeline: pipeline.cameras.enable(on))
        response.success = True
        response.message = "frames are derained" if on else "frames pass through unchanged"
        return response

    def _answer_invalid_transitions(self) -> None:
        """Refuse invalid transitions with an answer: Jazzy's rclpy raises, and the caller keeps
        waiting.
        """
        service = self._service_change_state
        change_state = service.callback

        def answer(request: Any, response: Any) -> Any:
            try:
                return change_state(request, response)
            except rclpy_implementation.RCLError as error:
                self.get_logger().warning(f"no such transition now: {error}")
                response.success = False
                return response

        service.callback = answer

    # --- Diagnostics ---------------------------------------------------------------------------

    def _report(self) -> None:
        node = self.get_fully_qualified_name()
        network = diagnostics.NetworkState(
            active=self.active,
            enabled=self._enabled,
            engine=self._engine,
            loading=self._loader.job is not None,
            trouble=self._trouble,
            rung=self.rung.name,
            stages=self._worker.pipeline.cameras.stages if self._worker is not None else 0,
            faults=self._faults,
        )
        message = DiagnosticArray(status=[diagnostics.network_status(node, network)])
        message.header.stamp = self.get_clock().now().to_msg()
        for index, camera in enumerate(self._cameras):
            message.status.append(
                diagnostics.camera_status(node, self._camera_state(index, camera))
            )
        self._diagnostics.publish(message)

    def _camera_state(self, index: int, camera: Topics) -> diagnostics.CameraState:
        since_ns = self._worker.pipeline.cameras.state_since_ns(index) if self._worker else None
        return diagnostics.CameraState(
            name=camera.name,
            topic=camera.topic,
            transport=camera.transport,
            reliable=camera.reliable,
            publishers=camera.publishers(),
            mismatch=camera.mismatch(),
            state_age_s=None if since_ns is None else (self.now_ns() - since_ns) / 1e9,
            summary=self.statistics[index].summary(),
        )


def _wanted(settings: Settings) -> str:
    """What is about to be loaded, in words."""
    network, engine = settings.network, settings.engine
    return f"loading {network.weights or network.name} for {engine.name} on {engine.device}"


def _free_memory() -> None:
    gc.collect()
    # Another thread may be importing torch at the moment, so not all of it may be there.
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and getattr(cuda, "is_initialized", bool)():
        cuda.empty_cache()
    give_back_freed_memory()
