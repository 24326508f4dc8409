"""What networks cost on this machine: time, memory and multiply-accumulates.

Time is measured in rounds. Each round steps every configuration of one size and number of cameras
once, so other load on the machine affects all of them alike and ratios hold. Memory is measured
separately, with a fresh process for each configuration.
"""

from __future__ import annotations

import itertools
import logging
import math
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain_removal_ros.errors import EngineError, RainRemovalError
from rain_removal_ros.runtime.allocator import keep_freed_memory

if TYPE_CHECKING:
    from rain_removal_ros.engines import Engine
    from rain_removal_ros.media.tiling import Needs
    from rain_removal_ros.networks._base import Network

__all__ = ["Case", "Effort", "Measurement", "cases", "measure"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """One configuration to measure."""

    network: str
    weights: str
    """A weight file, ours or published elsewhere; empty for untrained weights, which take as
    long."""
    model: str
    """The name shown: that of the weight file if there is one, else the network's."""
    engine: str
    device: str
    precision: str
    stages: int
    """0 for the network's own number."""
    width: int
    height: int
    cameras: int
    threads: int = 0
    """CPU threads; 0 for as many as cores."""
    compile: bool = False
    """Whether torch compiles the network; other engines ignore it."""

    def __str__(self) -> str:
        return (
            f"{self.model} {self.engine}{', compiled' * self.compile} "
            f"{self.device} {self.precision} "
            f"{self.width}x{self.height}, cameras: {self.cameras}"
        )


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    repeat: int = 20
    """The largest number of rounds."""
    seconds: float = 10.0
    """A configuration that has run for this long in total skips the remaining rounds."""


@dataclass(frozen=True)
class Measurement:
    """What a configuration costs. Times are of one step, which derains a frame of each camera."""

    model: str
    network: str
    engine: str
    device: str
    precision: str
    stages: int
    width: int
    height: int
    cameras: int
    threads: int
    compile: bool
    ms_median: float
    ms_p95: float
    repetitions: int
    peak_bytes: int | None
    """Memory taken from loading the network to the second frame. On a GPU, its memory, which only
    torch reports."""
    gmacs: float
    """10^9 multiply-accumulates for one frame of one camera."""
    parameters: int
    weights: str | None


def cases(
    models: Iterable[str],
    *,
    engines: Sequence[str] = ("auto",),
    devices: Sequence[str] = ("auto",),
    precisions: Sequence[str] = ("auto",),
    stages: Sequence[int] = (0,),
    sizes: Sequence[tuple[int, int]] = ((640, 480),),
    cameras: Sequence[int] = (1,),
    threads: int = 0,
    compile: bool = False,
    weights: Callable[[str], str] = lambda name: "",
) -> list[Case]:
    """All combinations. A network without stages has only one number of them.

    A model is the name of a network or of weights that ship, a weight file, or ``NETWORK:FILE`` for
    weights published elsewhere. ``weights`` returns the file for a name, or None.
    """
    from rain_removal_ros import networks

    subjects = [_subject(model, weights) for model in models]
    found = []
    for (width, height), several, subject in itertools.product(sizes, cameras, subjects):
        counts = stages if networks.module(subject[0]).Network.facts.stages > 1 else (0,)
        found += [
            Case(
                *subject, engine, device, precision, count, width, height, several, threads, compile
            )
            for engine, device, precision, count in itertools.product(
                engines, devices, precisions, counts
            )
        ]
    return list(dict.fromkeys(found))


def _subject(model: str, weights: Callable[[str], str]) -> tuple[str, str, str]:
    """The network, its weight file and its name."""
    from rain_removal_ros import checkpoints, networks

    network, colon, file = model.partition(":")
    if colon:
        networks.module(network)
        return network, file, Path(file).stem
    if file := model if Path(model).suffix else weights(model):
        return checkpoints.name_of(file), file, Path(file).stem
    if model not in networks.available():
        raise networks.unknown(model, checkpoints.names())
    return model, "", model


def measure(
    wanted: Sequence[Case],
    effort: Effort,
    *,
    said: Callable[[str], None] = lambda line: None,
) -> tuple[list[Measurement], list[tuple[Case, str]]]:
    """Measure all of them; returns those that failed with the reason.

    ``said`` gets progress messages.
    """
    measured: list[Measurement] = []
    failures: dict[Case, str] = {}
    peaks: dict[Case, int | None] = {}
    for number, case in enumerate(wanted, 1):
        said(f"memory {number}/{len(wanted)}: {case}")
        with _noted(case, failures):
            peaks[case] = _in_a_new_process(case)
    # One group is loaded at a time: all of them would not fit.
    alike: dict[tuple[int, int, int], list[Case]] = {}
    for case in peaks:
        alike.setdefault((case.width, case.height, case.cameras), []).append(case)
    for group in alike.values():
        runs = _in_turns(group, effort, said, failures)
        measured += [run.result(peaks[run.case]) for run in runs]
    return measured, list(failures.items())


@contextmanager
def _noted(case: Case, failures: dict[Case, str]) -> Iterator[None]:
    """Record why a configuration failed, and continue: others may have run for an hour."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - runtimes and exporters have kinds of their own
        if not isinstance(error, RainRemovalError | MemoryError):
            _log.warning("%s failed", case, exc_info=True)
        failures[case] = str(error) or type(error).__name__


def _in_turns(
    group: Sequence[Case],
    effort: Effort,
    said: Callable[[str], None],
    failures: dict[Case, str],
) -> list[_Timing]:
    """The configurations that completed; ``failures`` gets the others."""
    runs: list[_Timing] = []
    for case in group:
        said(f"first frame: {case}")
        with _noted(case, failures):
            run = _Timing(case)
            run.warm_up()
            runs.append(run)
    for number in range(1, effort.repeat + 1):
        active = [run for run in runs if not run.times or sum(run.times) < effort.seconds]
        if not active:
            break
        said(f"round {number}/{effort.repeat}: {len(active)} configurations")
        for run in active:
            with _noted(run.case, failures):
                run.step()
        runs = [run for run in runs if run.case not in failures]
    return runs


class _Timing:
    """A loaded configuration and its times."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.engine, self._gmacs, self._parameters, _ = _load(case)
        self._frames = _frames(case)
        self.times: list[float] = []
        self._states: list[Any] = [None] * case.cameras

    def warm_up(self) -> None:
        """Step twice: a carried state may run other code, and memory is allocated by then."""
        for _ in range(2):
            self.step()
        self.times.clear()

    def step(self) -> None:
        began = time.perf_counter()
        results = self.engine.step(self._frames, self._states)
        self.times.append(time.perf_counter() - began)
        self._states = [result.state for result in results]

    def result(self, peak: int | None) -> Measurement:
        times = sorted(1000 * seconds for seconds in self.times)
        case, engine = self.case, self.engine
        return Measurement(
            model=case.model,
            network=case.network,
            engine=engine.info.engine,
            device=engine.info.device,
            precision=engine.info.precision,
            stages=engine.info.stages,
            width=case.width,
            height=case.height,
            cameras=case.cameras,
            threads=case.threads,
            compile=case.compile,
            ms_median=round(statistics.median(times), 3),
            ms_p95=round(times[math.ceil(0.95 * len(times)) - 1], 3),
            repetitions=len(times),
            peak_bytes=peak,
            gmacs=round(self._gmacs, 3),
            parameters=self._parameters,
            weights=case.weights or None,
        )


def _load(case: Case) -> tuple[Engine, float, int, Needs]:
    """The engine, and the network's GMACs, parameters and memory needs."""
    from rain_removal_ros import engines
    from rain_removal_ros.media.tiling import Needs
    from rain_removal_ros.networks import _cost
    from rain_removal_ros.settings import EngineSettings, build

    network = _network(case)
    if case.stages:
        network.stages = case.stages
    gmacs = _cost.macs(network, width=case.width, height=case.height) / 1e9
    parameters = _cost.parameters(network)
    needs = Needs.of(network)
    settings = build(
        EngineSettings,
        {
            "name": case.engine,
            "device": case.device,
            "precision": case.precision,
            "threads": case.threads,
            "compile": case.compile,
        },
    )
    return engines.create(network, settings), gmacs, parameters, needs


def _network(case: Case) -> Network:
    from rain_removal_ros import checkpoints, networks

    if not case.weights:
        return networks.create(case.network)
    if Path(case.weights).suffix == ".safetensors":
        return checkpoints.load(case.weights).network
    return checkpoints.import_published(Path(case.weights), case.network)


def _frames(case: Case) -> list[Any]:
    """The cameras' images: a gradient with streaks, so that networks that search for regions find
    some.
    """
    import numpy as np

    # uint8 throughout: larger types would add memory that is not the network's.
    random = np.random.default_rng(0)
    frame = random.integers(0, 12, (case.height, case.width, 3), np.uint8)
    frame += np.linspace(40, 160, case.height).astype(np.uint8)[:, None, None]
    frame += (random.random((1, case.width, 1)) > 0.95).astype(np.uint8) * np.uint8(70)
    return [frame] * case.cameras


def _in_a_new_process(case: Case) -> int | None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_peak, case).result()
        except BrokenProcessPool as error:
            raise EngineError(
                "the process was killed, most likely because memory ran out"
            ) from error


def _peak(case: Case) -> int | None:
    """The peak memory of loading a network and deraining two frames."""
    keep_freed_memory()
    import torch

    from rain_removal_ros import engines  # noqa: F401  what it imports is not the network's

    before = _restart_peak()
    engine, _, _, needs = _load(case)
    if engine.info.device == "cpu":
        _refuse_what_cannot_fit(case, engine, needs)
    frames = _frames(case)
    states: list[Any] = [None] * case.cameras
    for _ in range(2):
        states = [result.state for result in engine.step(frames, states)]
    if engine.info.device.startswith("cuda"):
        # torch does not know what other libraries allocate there.
        of_torch = engine.info.engine == "torch"
        return int(torch.cuda.max_memory_allocated(engine.info.device)) if of_torch else None
    return _peak_resident() - before


def _refuse_what_cannot_fit(case: Case, engine: Engine, needs: Needs) -> None:
    """Refuse in advance on a CPU, where the system would kill a process, perhaps another one. A GPU
    refuses by itself.
    """
    from rain_removal_ros.media.tiling import memory_left

    pixels = case.width * case.height
    needed = pixels * (needs.working + needs.state * case.cameras)
    if needed > (left := memory_left(engine.info.device)):
        raise EngineError(
            f"it may take {needed / 2**30:.1f} GiB, and {left / 2**30:.1f} GiB may be used"
        )


def _restart_peak() -> int:
    """The resident memory now, from which the peak is counted."""
    # If the peak cannot be reset, growth is counted from the peak reached during imports.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_resident()


def _peak_resident() -> int:
    """The peak memory of this program.

    Read from Linux's own record if possible: ``ru_maxrss`` starts with what the process held before
    exec, which is as much as its parent.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
