"""Trains a queue of recipes, one after another on each of several cores.

A campaign is a YAML file with lanes, which train side by side. Each lane is a list of legs, and a
leg is a recipe with its hours. The progress of a campaign is read from its runs alone, so it can be
stopped or killed at any time, and the same command continues it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rain_removal_ros.errors import SettingsError, TrainingError
from rain_removal_ros.settings import build, read_yaml, setting

_LOOK_EVERY_S = 1.0
_TRIES = 3
_PAUSE_S = 30.0
_LOWEST_PRIORITY = 19


@dataclass(frozen=True)
class LegSettings:
    """One recipe and how long it is trained."""

    recipe: str = setting("", "recipe file, relative to the campaign's")
    run: str = setting(
        "", "name of its folder below the campaign's runs; empty for the recipe's name"
    )
    hours: float = setting(1.0, "processor time that it gets in total", unit="h", low=0.0)
    begin_with: tuple[str, ...] = setting(
        (), "weights to start from, the first that exist: names of runs, or of weights that ship"
    )
    set: tuple[str, ...] = setting((), "overrides of the recipe's settings: NAME=VALUE")


@dataclass(frozen=True)
class Leg:
    """A leg and its folder."""

    settings: LegSettings
    recipe: Path
    run: Path

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def ended(self) -> bool:
        """Whether its hours are spent, or its recipe has reached its last step."""
        return progress(self.run).hours >= self.settings.hours or (self.run / "done").exists()

    def command(self, data_root: str) -> list[str]:
        """The command that trains it for its remaining hours."""
        command = [sys.executable, "-m", "rain_removal_ros", "train", "--config", str(self.recipe)]
        command += ["--run", str(self.run), "--data-root", data_root]
        # Lanes share decoded pictures, and a leg that starts again has them at once.
        command += ["--set", f"data.decoded={json.dumps(str(self.run.parent / 'decoded'))}"]
        command += ["--set", f"core_hours={self.settings.hours}", "--set", "threads=1"]
        if (weights := self.start_from()) is not None:
            command += ["--set", f"init_from={json.dumps(weights)}"]
        for override in self.settings.set:
            command += ["--set", override]
        return command

    def start_from(self) -> str | None:
        """The weights it starts from, as a value of ``init_from``; None leaves it to the recipe."""
        for name in self.settings.begin_with:
            weights = self.run.parent / name / "last.safetensors"
            if weights.exists():
                return str(weights)
            if not (self.run.parent / name).exists() and _ships(name):
                return name
        return None


@dataclass(frozen=True)
class Campaign:
    """All lanes of a campaign."""

    path: Path
    runs: Path
    data_root: str
    lanes: tuple[tuple[Leg, ...], ...]

    @property
    def legs(self) -> Iterator[Leg]:
        return (leg for lane in self.lanes for leg in lane)


@dataclass(frozen=True)
class Progress:
    """The progress of a run."""

    step: int = 0
    hours: float = 0.0
    """Processor time, without the data loader, which runs beside it."""
    values: dict[str, float] = field(default_factory=dict)
    """The last value of each number in its log."""


def load_campaign(path: Path, runs: Path) -> Campaign:
    """Read a campaign; all its recipes must exist."""
    values = read_yaml(path)
    unknown = set(values) - {"data_root", "lanes"}
    if unknown:
        raise SettingsError(f"{path}: a campaign has data_root and lanes, not {min(unknown)}")
    lanes = values.get("lanes")
    if not isinstance(lanes, list) or not all(isinstance(lane, list) for lane in lanes):
        raise SettingsError(f"{path}: lanes must be a list of lists of legs")
    found = []
    for number, lane in enumerate(lanes):
        legs = []
        for place, entry in enumerate(lane):
            where = f"{path}: lanes[{number}][{place}]"
            if not isinstance(entry, dict):
                raise SettingsError(f"{where} must be settings of a leg")
            legs.append(_leg(build(LegSettings, entry, where=where), path, runs, where))
        found.append(tuple(legs))
    campaign = Campaign(path, runs, str(values.get("data_root", ".")), tuple(found))
    names = [leg.name for leg in campaign.legs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"{path}: two legs would share the run {twice[0]}; give one a run")
    return campaign


def _leg(settings: LegSettings, path: Path, runs: Path, where: str) -> Leg:
    recipe = path.parent / settings.recipe
    if not settings.recipe or not recipe.is_file():
        raise SettingsError(f"{where}: there is no recipe {recipe}")
    return Leg(settings, recipe, runs / (settings.run or recipe.stem))


def progress(run: Path) -> Progress:
    """The progress in a run's log, without lines that a killed run left unfinished."""
    try:
        lines = (run / "log.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Progress()
    step, seconds, values = 0, 0.0, {}
    for line in lines:
        try:
            entry = json.loads(line)
            step, clock_s = int(entry.pop("step")), float(entry.pop("seconds"))
            seconds = float(entry.pop("core_seconds", clock_s))
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
        values.update(entry)
    return Progress(step, seconds / 3600, values)


class Supervisor:
    """Keeps a training process running in every lane until all legs have ended."""

    def __init__(self, campaign: Campaign, *, minutes: float = 0.0) -> None:
        self.campaign = campaign
        self._deadline = time.monotonic() + minutes * 60 if minutes else None
        self._lanes = [_Lane(lane, campaign.data_root) for lane in campaign.lanes]
        self._stopping = False

    def run(self) -> bool:
        """Run until the end, the deadline or a signal; returns whether all legs ended well."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        with only_one(self.campaign.runs):
            while self._advance():
                late = self._deadline is not None and time.monotonic() > self._deadline
                if late and not self._stopping:
                    self._stop()
                time.sleep(_LOOK_EVERY_S)
        return all(leg.ended for leg in self.campaign.legs)

    def _advance(self) -> bool:
        """Check every lane; returns whether any has more to do."""
        busy = [lane.advance(start=not self._stopping) for lane in self._lanes]
        return any(busy)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for lane in self._lanes:
            lane.stop()


class _Lane:
    """The legs that one core trains in turn."""

    def __init__(self, legs: tuple[Leg, ...], data_root: str) -> None:
        self._legs = legs
        self._data_root = data_root
        self._process: subprocess.Popen[bytes] | None = None
        self._leg: Leg | None = None
        self._failures: dict[str, int] = {}
        self._next_try = 0.0

    def advance(self, *, start: bool) -> bool:
        """Check the process, and start the next one if wanted; returns whether there is more to
        do.
        """
        if self._process is not None:
            if self._process.poll() is None:
                return True
            self._note_end(self._process.returncode)
        waiting = [leg for leg in self._legs if not leg.ended and not self._given_up(leg)]
        if not start or not waiting:
            return False
        if time.monotonic() >= self._next_try:
            self._start(waiting[0])
        return True

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()  # the process saves at this signal

    def _given_up(self, leg: Leg) -> bool:
        return self._failures.get(leg.name, 0) >= _TRIES

    def _start(self, leg: Leg) -> None:
        leg.run.mkdir(parents=True, exist_ok=True)
        with (leg.run / "output.log").open("ab") as output:
            # One thread each: several processes on one core should compute, not wait for each
            # other's threads. A session of its own keeps Ctrl-C from them.
            self._process = subprocess.Popen(
                leg.command(self._data_root),
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                preexec_fn=_lowest_priority,
            )
        self._leg = leg

    def _note_end(self, code: int) -> None:
        leg = self._leg
        self._process = self._leg = None
        if leg is None or code == 0:
            if leg is not None and "done;" in last_line(leg.run / "output.log"):
                (leg.run / "done").touch()
            return
        said = last_line(leg.run / "output.log")
        failures = self._failures[leg.name] = self._failures.get(leg.name, 0) + 1
        next_try = (
            f"trying again in {_PAUSE_S:.0f} s"
            if failures < _TRIES
            else "it is left out from now on"
        )
        print(f"{leg.name} ended with {code}: {said}; {next_try}", file=sys.stderr, flush=True)
        if "damaged" in said:
            _put_aside(leg.run / "state.pt")
        self._next_try = time.monotonic() + _PAUSE_S


def _lowest_priority() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, _LOWEST_PRIORITY)
    # With autogroups, Linux shares time equally among sessions, and the priority of a process only
    # counts within its own. The session itself has one too.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_LOWEST_PRIORITY))


def _put_aside(state: Path) -> None:
    """Let a run whose state cannot be read continue from its last weights."""
    if state.exists():
        state.replace(state.with_name("state.damaged.pt"))


def last_line(path: Path) -> str:
    """The last line with text, at most its last 300 characters."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 5000))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return "it said nothing"
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "it said nothing"


@contextmanager
def only_one(runs: Path) -> Iterator[None]:
    """Raise if another campaign uses the same runs."""
    lock = _lock_file(runs)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError(
                f"a campaign is at work in {runs} already; 'rain-removal campaign stop' ends it"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def at_work(runs: Path) -> int | None:
    """The process of the campaign that uses these runs."""
    path = runs / "campaign.lock"
    if not path.exists():
        return None
    with path.open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            text = lock.read().strip()
            return int(text) if text.isdigit() else None
    return None


def stop(runs: Path, *, patience_s: float = 120.0) -> bool:
    """Stop the running campaign, which saves its runs; False if there is none."""
    process = at_work(runs)
    if process is None:
        return False
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while at_work(runs) is not None:
        if time.monotonic() > deadline:
            raise TrainingError(f"the campaign, process {process}, has not ended in {patience_s} s")
        time.sleep(0.2)
    return True


def table(campaign: Campaign) -> str:
    """The progress of every leg, as text."""
    lines = [f"{'run':32} {'hours':>11} {'steps':>9}  at last"]
    for leg in campaign.legs:
        found = progress(leg.run)
        shown = [f"{name} {value:.3g}" for name, value in found.values.items() if _tells(name)]
        spent = f"{found.hours:.2f}/{leg.settings.hours:g}"
        lines.append(f"{leg.name:32} {spent:>11} {found.step:>9}  {', '.join(shown)}")
    total = sum(progress(leg.run).hours for leg in campaign.legs)
    lines.append(f"{'all':32} {total:>11.2f} core hours")
    return "\n".join(lines)


def _tells(name: str) -> bool:
    return name in ("l1", "log_l1", "loss") or name.endswith("/psnr")


def _lock_file(runs: Path) -> IO[Any]:
    try:
        runs.mkdir(parents=True, exist_ok=True)
        return (runs / "campaign.lock").open("a+")
    except OSError as error:
        raise TrainingError(f"cannot write to {runs}: {error.strerror}") from error


def _ships(name: str) -> bool:
    from rain_removal_ros import checkpoints

    return checkpoints.find(name) is not None
