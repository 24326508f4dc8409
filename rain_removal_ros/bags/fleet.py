"""Derains many recordings: in processes of this machine, or on the machines of a Ray cluster.

Each recording is one task in a process of its own. If one fails or crashes, it is named and the
others are still done. Finished tasks are noted beside their results, so the same call continues an
interrupted one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rain_removal_ros.errors import BagError, RainRemovalError, first_line, with_extra
from rain_removal_ros.manifest import manifest
from rain_removal_ros.runtime.files import write_json
from rain_removal_ros.settings import Settings, build, flatten

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from rain_removal_ros.bags.replaying import ReplayOptions

__all__ = ["FleetOptions", "FleetResult", "run", "write"]


_RETRIES = 3
"""Times that a recording is given to another worker after its own was killed or its node lost."""


@dataclass(frozen=True)
class FleetOptions:
    """What is done with every recording."""

    settings: Settings
    options: ReplayOptions
    scored: bool = False
    """Whether each gets a report, which takes longer."""


@dataclass(frozen=True)
class FleetTask:
    """One recording, as it is sent to the process that derains it."""

    name: str
    source: str
    target: str
    settings: dict[str, Any]
    options: dict[str, Any]
    scored: bool

    @property
    def note(self) -> Path:
        """Where the result is written once the task is done."""
        return Path(f"{self.target}.json")

    @property
    def begun(self) -> Path:
        """A file that exists from the start of the task to its end."""
        return Path(self.target).with_name(f".{self.name}.begun")

    @property
    def fingerprint(self) -> str:
        """Changes if the same call would give another result."""
        files = [Path(self.source), *sorted(Path(self.source).glob("*"))]
        facts = [(path.name, (s := path.stat()).st_size, s.st_mtime_ns) for path in files]
        options = {key: value for key, value in self.options.items() if key != "force"}
        said = json.dumps([facts[1:] or facts, self.settings, options, self.scored], default=str)
        return hashlib.sha256(said.encode()).hexdigest()


@dataclass
class FleetResult:
    """What became of all recordings."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)
    """Those that an earlier call finished."""

    def summary(self) -> str:
        """One line about all."""
        frames = sum(result["frames"] for result in self.results.values())
        said = [f"{len(self.results)} recordings derained, {frames} frames"]
        said += [f"{len(self.before)} of them before"] if self.before else []
        said += [f"{len(self.failures)} failed"] if self.failures else []
        return ", ".join(said)


def run(
    sources: Sequence[Path],
    out: Path,
    order: FleetOptions,
    *,
    jobs: int = 1,
    ray: str | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> FleetResult:
    """Derain every recording into folder ``out``; ``ray`` is a cluster's address, or "local"."""
    if jobs < 1:
        raise BagError(f"at least 1 recording at a time, not {jobs}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BagError(f"cannot write to {out}: {error.strerror}") from error
    works = _works(sources, out, order, jobs)
    done = FleetResult()
    open_works = []
    for work in works:
        if (known := _finished(work)) is not None:
            done.results[work.name] = known
            done.before.append(work.name)
        else:
            open_works.append(work)
    outcomes = _on_ray(open_works, ray) if ray else _on_processes(open_works, jobs)
    for count, (work, outcome) in enumerate(outcomes, 1):
        if "failure" in outcome:
            done.failures[work.name] = outcome["failure"]
        else:
            done.results[work.name] = outcome
        progress(len(done.before) + count, len(works))
    return done


def write(done: FleetResult, *, report: Path | None, json: Path | None) -> None:
    """Write the summary over all recordings, as a page and as JSON."""
    if json is not None:
        write_json(
            json,
            {
                "manifest": manifest(),
                "recordings": done.results,
                "failures": done.failures,
                "before": done.before,
            },
        )
    if report is not None:
        _write_page(done, report)


def _works(sources: Sequence[Path], out: Path, order: FleetOptions, jobs: int) -> list[FleetTask]:
    settings = flatten(order.settings)
    if not settings["engine.threads"] and jobs > 1:
        settings["engine.threads"] = max(1, (os.cpu_count() or 1) // jobs)
    options = dataclasses.asdict(order.options)
    named: dict[str, Path] = {}
    for source in sources:
        name = _name(source)
        if name in named:
            name = f"{_name(source.absolute().parent)}-{name}"
        if name in named:
            raise BagError(f"{named[name]} and {source} would both be called {name}")
        named[name] = source
    return [
        FleetTask(
            name, str(source.absolute()), str((out / name).absolute()),
            settings, options, order.scored,
        )
        for name, source in named.items()
    ]  # fmt: skip


def _name(path: Path) -> str:
    """A recording's name without the suffixes of recordings."""
    name = path.name
    for suffix in (".zstd", ".mcap", ".db3", ".bag"):
        name = name.removesuffix(suffix)
    return name


def _finished(work: FleetTask) -> dict[str, Any] | None:
    """The noted result, if it is that of exactly this task."""
    try:
        noted: dict[str, Any] = json.loads(work.note.read_text(encoding="utf-8"))
        same = noted["fingerprint"] == work.fingerprint and Path(work.target).exists()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _short(noted) if same else None


def _do(work: FleetTask) -> dict[str, Any]:
    """Process one recording; runs in the process that the task was sent to."""
    from rain_removal_ros.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    from rain_removal_ros.bags import replay_report
    from rain_removal_ros.bags.frame_scores import FrameScorer
    from rain_removal_ros.bags.replaying import ReplayOptions, replay
    from rain_removal_ros.engines import load

    try:
        # Remains of an interrupted call under this name are not the user's.
        own = work.begun.exists()
        work.begun.touch()
        settings = build(Settings, work.settings)
        options = {**work.options, "force": work.options["force"] or own or work.note.exists()}
        engine = load(settings.network, settings.engine)
        scorer = FrameScorer() if work.scored else None
        target = Path(work.target)
        done = replay(
            Path(work.source), target, engine, settings, ReplayOptions(**options), observer=scorer
        )
        payload = replay_report.payload(done, engine, settings, scorer)
        if scorer is not None:
            replay_report.write_report(Path(f"{work.target}.html"), payload, scorer)
        replay_report.write(work.note, {"fingerprint": work.fingerprint, **payload})
        work.begun.unlink(missing_ok=True)
    except RainRemovalError as error:
        work.begun.unlink(missing_ok=True)
        return {"failure": " ".join(str(error).split())}
    except Exception as error:  # noqa: BLE001 - one recording must not end the others
        return {"failure": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    return _short(payload)


def _short(payload: dict[str, Any]) -> dict[str, Any]:
    """The part of a result that the summary needs."""
    names = (
        "source", "output", "frames", "seconds", "network_seconds", "losses", "scores", "cameras",
    )  # fmt: skip
    return {name: payload[name] for name in names if name in payload}


# --- On this machine -----------------------------------------------------------------------------


def _on_processes(
    works: Sequence[FleetTask], jobs: int
) -> Iterator[tuple[FleetTask, dict[str, Any]]]:
    with ThreadPoolExecutor(jobs, "recording") as pool:
        waiting = {pool.submit(_in_process, work): work for work in works}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BaseException:
            for future in waiting:
                future.cancel()
            raise


def _in_process(work: FleetTask) -> dict[str, Any]:
    """The result of one recording, from a process that may crash."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(work, there), daemon=True)
    process.start()
    there.close()
    try:
        outcome: dict[str, Any] = here.recv()
    except EOFError:
        process.join()
        outcome = {"failure": f"its process ended with code {process.exitcode}"}
    process.join()
    return outcome


def _answer(work: FleetTask, there: Connection) -> None:
    there.send(_do(work))


# --- On a cluster --------------------------------------------------------------------------------


def _on_ray(works: Sequence[FleetTask], address: str) -> Iterator[tuple[FleetTask, dict[str, Any]]]:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise BagError(f"--ray needs Ray: {with_extra('ray')}") from error
    started = not ray.is_initialized()
    if started:
        _check_reachable(address)
        try:
            ray.init(
                address=None if address == "local" else address,
                log_to_driver=False,
                logging_level=logging.WARNING,
                include_dashboard=False if address == "local" else None,
            )
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise BagError(
                f"no Ray cluster at {address}: {first_line(error)}; if it has a token, copy "
                "~/.ray/auth_token from its head, and export RAY_AUTH_MODE=token"
            ) from error
    try:
        task = ray.remote(max_retries=_RETRIES)(_do_there)
        waiting = {task.remote(work): work for work in works}
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting))
            work = waiting.pop(ready)
            try:
                yield work, ray.get(ready)
            except ray.exceptions.RayError as error:
                yield work, {"failure": str(error).strip().splitlines()[-1]}
    finally:
        if started:
            ray.shutdown()


def _do_there(work: FleetTask) -> dict[str, Any]:
    """As ``_do``; what failed may be the machine's fault, so its name is added."""
    outcome = _do(work)
    if "failure" in outcome:
        outcome["failure"] += f" (on {socket.gethostname()})"
    return outcome


def _check_reachable(address: str) -> None:
    """Report at once if nobody answers at HOST:PORT; Ray itself would keep trying."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=5.0).close()
        except OSError as error:
            raise BagError(f"no Ray cluster at {address}: {error}") from error


# --- Summary -------------------------------------------------------------------------------------


def _write_page(done: FleetResult, path: Path) -> None:
    from rain_removal_ros.bags.replay_report import verdict
    from rain_removal_ros.report import Html, Page, facts, table, text

    page = Page("Recordings derained", done.summary() + ".")
    rows = []
    for name, result in sorted(done.results.items()):
        link = os.path.relpath(f"{result['output']}.html", path.parent)
        for topic, figures in result.get("scores", {}).items():
            rows.append(
                [
                    Html(f'<a href="{text(link)}">{text(name)}</a>'),
                    topic,
                    figures["frames"],
                    verdict(figures),
                    "" if (ms := figures["network_ms_median"]) is None else f"{ms:.1f} ms",
                    "; ".join(result["losses"]),
                ]
            )
    head = ["recording", "topic", "frames", "verdict", "network", "lost"]
    page.section("Results", table(head, rows))
    if done.failures:
        page.section("Failed", facts(done.failures))
    page.section("Machine and versions", facts(manifest()))
    page.write(path)
