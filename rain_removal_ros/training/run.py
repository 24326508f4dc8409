"""The training loop. A step depends only on the recipe, the step's number and the saved state, so a
run can be interrupted and continued exactly, on one machine or under ``torchrun`` on many.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rain_removal_ros import checkpoints, networks
from rain_removal_ros.data.mix import Mix, Samples
from rain_removal_ros.errors import CheckpointError, SettingsError, TrainingError
from rain_removal_ros.networks._base import Batch, Network, Objective
from rain_removal_ros.networks._limits import bounded
from rain_removal_ros.training.journal import Journal
from rain_removal_ros.training.optimisation import (
    create_optimiser,
    load_moments,
    schedule_factor,
    set_rate,
    update_mean,
)
from rain_removal_ros.training.recipe import Recipe
from rain_removal_ros.training.revival import copy_changes, revive
from rain_removal_ros.training.state import (
    Interrupt,
    read_state,
    rng_states,
    set_rng_state,
    write_state,
)
from rain_removal_ros.training.validation import Validation, prepare

_PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_REVIVED_UNTIL = 2 / 3
"""The share of a run after which no units start anew: they need time to become useful."""
_LOOKED_AT = 40
"""Batches on which a unit must be dead."""


def train(recipe: Recipe) -> TrainingRun:
    """Train or continue until the recipe's end, the time limit or a signal."""
    run = TrainingRun(recipe)
    try:
        run.go()
    finally:
        run.close()
    return run


class TrainingRun:
    """A training run, in one or several processes."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.device = _device(recipe)
        self.rank, self.processes = _join_processes(self.device)
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.name = str(recipe.network.get("name", ""))
        self.folder = Path(recipe.run or f"runs/{self.name}")
        self.step = 0
        self.best = -math.inf
        self.trained_s = 0.0
        self.core_s = 0.0
        self.network = self._create()
        self._warm_start()
        with bounded(self.name):
            self.objective: Objective = networks.module(self.name).Objective(self.network)
        self.objective.to(self.device)
        self.objective.truncate = recipe.truncate
        self.teacher = self._teacher()
        self.mean: Network | None = None
        if recipe.ema:
            self.mean = self._create().requires_grad_(requires_grad=False)
            self.mean.load_state_dict(self.network.state_dict())
        rates = self.objective.rates()
        self.optimisers = {
            player: create_optimiser(player, parameters, recipe.optimiser, rates)
            for player, parameters in self.objective.players().items()
        }
        half = recipe.precision == "float16"
        self.scalers = {
            player: torch.amp.GradScaler(self.device.type, enabled=half)
            for player in self.optimisers
        }
        if recipe.revive_every and not self.network.rectified():
            raise SettingsError(f"{self.name} cannot start units anew; revive_every must be 0")
        self._check_crop()
        self.mix = Mix(
            recipe.data,
            seed=recipe.seed,
            scale=self.network.scale,
            wants_unlabelled=self.objective.wants_unlabelled,
            rank=self.rank,
            processes=self.processes,
        )
        # From here on processes draw different noise; before, all had to begin alike.
        torch.manual_seed(recipe.seed + self.rank)
        self._resume()
        self.game = self._shared_game()

    @property
    def judged(self) -> Network:
        """The network that is validated and saved: the mean of the weights, if there is one."""
        return self.network if self.mean is None else self.mean

    @property
    def _method(self) -> str:
        return self.recipe.optimiser.name

    @property
    def finished(self) -> bool:
        return self.step >= self.recipe.steps

    def close(self) -> None:
        """Leave the other processes, if there are any."""
        if self.processes > 1:
            dist.destroy_process_group()

    def go(self) -> None:
        """Step until the end, the time limit or a signal; save at intervals and at the end."""
        journal, validations = None, []
        if self.rank == 0:
            journal = Journal(self.folder, step=self.step, steps=self.recipe.steps)
            validations = prepare(self.recipe.validation, self.recipe.data)
        self.game.train()
        started, before_s = time.monotonic(), self.trained_s
        core_started, core_before_s = time.process_time(), self.core_s
        deadline_s = self.recipe.max_minutes * 60 or math.inf
        core_limit_s = self.recipe.core_hours * 3600 or math.inf
        try:
            with Interrupt() as interrupt:
                if journal is not None:
                    journal.say(f"{self.name} from step {self.step} on, in {self.folder}")
                for samples in self.mix.batches(self.step, self.recipe.steps):
                    losses = self._one_step(samples)
                    self.step += 1
                    self._revive()
                    elapsed_s = time.monotonic() - started
                    self.trained_s = before_s + elapsed_s
                    self.core_s = core_before_s + time.process_time() - core_started
                    spent = elapsed_s >= deadline_s or self.core_s >= core_limit_s
                    stop = self._agreed(spent or interrupt.asked)
                    if journal is not None:
                        self._report(journal, losses, last=stop or self.finished)
                        self._validate(journal, validations)
                    if stop or self.finished or self.step % self.recipe.save_every == 0:
                        self._save()
                    if stop:
                        break
        finally:
            if journal is not None:
                journal.close()
        if self.processes > 1:
            dist.barrier()  # a process that has left would break the connections of the others

    # --- one step

    def _one_step(self, samples: Samples) -> dict[str, Tensor]:
        """Let every player make its move; returns all losses by name."""
        batch = _on_device(samples, self.device)
        if self.teacher is not None:
            batch.taught = self._taught(self.teacher, batch.rainy)
        factor = schedule_factor(self.recipe.schedule, self.step, self.recipe.steps)
        shown: dict[str, Tensor] = {}
        for player, optimiser in self.optimisers.items():
            set_rate(optimiser, factor)
            self.objective.zero_grad(set_to_none=True)
            losses = self._losses(batch, player)
            total = torch.stack(list(losses.values())).sum()
            scaler = self.scalers[player]
            torch.autograd.backward(scaler.scale(total))
            scaler.unscale_(optimiser)
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm or math.inf)
            # A scaler skips steps that overflow by itself, and lowers its scale.
            if not torch.isfinite(total if scaler.is_enabled() else total + norm):
                self._stop_for_nan(samples, player, losses)
            scaler.step(optimiser)
            scaler.update()
            shown.update({name: value.detach() for name, value in losses.items()})
        if self.mean is not None:
            update_mean(self.mean, self.network, keep=self.recipe.ema, step=self.step)
        return shown

    def _revive(self) -> None:
        every, last = self.recipe.revive_every, _REVIVED_UNTIL * self.recipe.steps
        if not every or self.step % every or self.step > last:
            return
        numbers = range(max(0, self.step - _LOOKED_AT), self.step)
        clips = [_on_device(self.mix[number], self.device).rainy for number in numbers]
        with self._precision():
            # A seed of its own: loaders draw from torch's generator too, whenever a run resumes.
            changes = revive(self.network, clips, seed=self.recipe.seed + self.step)
        if self.processes > 1:
            for parameter in self.network.parameters():
                dist.broadcast(parameter.data, 0)
        if self.mean is not None:
            copy_changes(changes, self.network, self.mean)

    def _losses(self, batch: Batch, player: str) -> dict[str, Tensor]:
        with self._precision():
            losses: dict[str, Tensor] = self.game(batch, player)
        return losses

    @torch.no_grad()
    def _taught(self, teacher: Network, rainy: Tensor) -> Tensor:
        """The teacher's output for clips, with carried state."""
        frames, state = [], ()
        with self._precision():
            for frame in rainy.unbind(1):
                output = teacher(frame, state)
                frames.append(output.derained.float())
                state = output.state
        return torch.stack(frames, 1)

    def _precision(self) -> torch.autocast:
        dtype = _PRECISIONS.get(self.recipe.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def _stop_for_nan(self, samples: Samples, player: str, losses: dict[str, Tensor]) -> None:
        path = self.folder / f"not_finite_{self.rank}.pt"
        state = {"step": self.step, "player": player, **samples._asdict()}
        write_state(path, state)
        values = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())
        raise TrainingError(
            f"step {self.step}: the loss of {player} or its gradient is not finite ({values}); "
            f"the batch is in {path}. A lower optimiser.rate, a clip_norm or precision: float32 "
            "may help"
        )

    def _agreed(self, stop: bool) -> bool:  # noqa: FBT001
        """Whether any process wants to stop, because all must stop together."""
        if self.processes == 1:
            return stop
        wish = torch.tensor(float(stop), device=self.device)
        dist.all_reduce(wish, dist.ReduceOp.MAX)
        return bool(wish.item())

    # --- what comes out

    def _report(self, journal: Journal, losses: dict[str, Tensor], *, last: bool) -> None:
        journal.advance()
        if self.step % self.recipe.log_every == 0 or last:
            values = {name: float(value) for name, value in losses.items()}
            journal.show(values)
            rate = schedule_factor(self.recipe.schedule, self.step - 1, self.recipe.steps)
            values["rate"] = rate * self.recipe.optimiser.rate
            journal.note(self.step, self.trained_s, self.core_s, values)

    def _validate(self, journal: Journal, validations: list[Validation]) -> None:
        if self.step % self.recipe.validate_every and not self.finished:
            return
        self.judged.eval()
        for place, validation in enumerate(validations):
            picture = self.folder / "pictures" / f"{validation.name}_{self.step:07d}.png"
            with self._precision():
                scores = validation.measure(self.judged, self.device, picture)
            name = validation.name
            values = {f"{name}/{key}": value for key, value in scores.items()}
            journal.note(self.step, self.trained_s, self.core_s, values)
            journal.say(
                f"step {self.step}  {name}: {scores['psnr']:.3f} dB, "
                f"{scores['gain']:+.3f} over the input"
            )
            if place == 0 and scores["psnr"] > self.best:
                self.best = scores["psnr"]
                self._save_weights("best")
        self.network.train()

    def _save_weights(self, name: str) -> None:
        facts = {
            "steps": self.step,
            "hours": round(self.trained_s / 3600, 3),
            "core_hours": round(self.core_s / 3600, 3),
            "processes": self.processes,
            "recipe": asdict(self.recipe),
        }
        checkpoints.save(self.folder / f"{name}.safetensors", self.judged, facts)

    def _save(self) -> None:
        generators = rng_states(self.processes)
        if self.rank > 0:
            return
        state = {
            "network": self.recipe.network,
            "method": self._method,
            "step": self.step,
            "best": self.best,
            "trained_s": self.trained_s,
            "core_s": self.core_s,
            "objective": self.objective.state_dict(),
            "mean": None if self.mean is None else self.mean.state_dict(),
            "optimisers": {name: each.state_dict() for name, each in self.optimisers.items()},
            "scalers": {name: each.state_dict() for name, each in self.scalers.items()},
            "rng": generators,
        }
        write_state(self.folder / "state.pt", state)
        self._save_weights("last")

    # --- how it begins

    def _create(self) -> Network:
        fields = {key: value for key, value in self.recipe.network.items() if key != "name"}
        network = networks.create(self.name, **fields)
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def _check_crop(self) -> None:
        data, stride = self.recipe.data, self.network.facts.stride
        for name in ("crop", "crop_width", "clip_crop", "clip_crop_width"):
            side = getattr(data, name)
            if side % stride:
                near = (side // stride * stride or stride, (side // stride + 1) * stride)
                raise SettingsError(
                    f"data.{name} is {side}, but {self.name} takes multiples of {stride}: "
                    f"{near[0]} or {near[1]}"
                )

    def _warm_start(self) -> None:
        if not self.recipe.init_from:
            return
        path = checkpoints.resolve(self.recipe.init_from)
        start = checkpoints.load(path)
        if start.name != self.name:
            raise CheckpointError(f"init_from: {path} holds {start.name}, not {self.name}")
        grow = getattr(networks.module(self.name), "grow", None)
        try:
            if grow is not None and start.network.config != self.network.config:
                grow(start.network, self.network)
            else:
                self.network.load_state_dict(start.network.state_dict())
        except (RuntimeError, SettingsError) as error:
            raise CheckpointError(
                f"init_from: {path} is {self.name} of another size: {start.network.config}"
            ) from error

    def _teacher(self) -> Network | None:
        """The network whose output is imitated, if any."""
        if not self.recipe.teacher:
            return None
        if type(self.objective).forward is not Objective.forward:
            raise SettingsError(f"teacher: {self.name} has losses of its own and imitates nobody")
        network = checkpoints.load(checkpoints.resolve(self.recipe.teacher)).network
        if network.scale != self.network.scale:
            raise SettingsError(
                f"teacher: {self.recipe.teacher} enlarges {network.scale} times, {self.name} "
                f"{self.network.scale} times"
            )
        network.requires_grad_(requires_grad=False)
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _resume(self) -> None:
        path = self.folder / "state.pt"
        if not path.is_file():
            return
        state = read_state(path)
        for what, ours in (("network", self.recipe.network), ("method", self._method)):
            if state[what] != ours:
                raise CheckpointError(
                    f"{path} is of a run of {state[what]}, not of {ours}; give another run folder"
                )
        self.step, self.best, self.trained_s = state["step"], state["best"], state["trained_s"]
        self.core_s = state.get("core_s", 0.0)
        self.objective.load_state_dict(state["objective"])
        if self.mean is not None:
            self.mean.load_state_dict(state["mean"] or self.network.state_dict())
        for name, optimiser in self.optimisers.items():
            load_moments(optimiser, state["optimisers"][name])
            self.scalers[name].load_state_dict(state["scalers"][name])
        if self.rank < len(state["rng"]):
            set_rng_state(state["rng"][self.rank])

    def _shared_game(self) -> nn.Module:
        """The objective, with gradients averaged over all processes."""
        if self.processes == 1:
            return self.objective
        # A player's losses do not reach the parameters of the others.
        return DistributedDataParallel(
            self.objective, find_unused_parameters=len(self.optimisers) > 1
        )


def _on_device(samples: Samples, device: torch.device) -> Batch:
    def ready(pixels: Tensor) -> Tensor:
        return pixels.to(device, non_blocking=True).float().div_(255)

    unlabelled = samples.unlabelled
    return Batch(
        ready(samples.rainy),
        ready(samples.reference),
        unlabelled=None if unlabelled is None else ready(unlabelled),
    )


def _device(recipe: Recipe) -> torch.device:
    name = recipe.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if recipe.precision == "float16" and name == "cpu":
        raise SettingsError("precision: float16 trains on CUDA only; on the CPU bfloat16 does")
    if name == "cuda":
        if not torch.cuda.is_available():
            raise SettingsError("device: cuda, but torch finds no CUDA device here")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        torch.backends.cudnn.benchmark = True
    return torch.device(name)


def _join_processes(device: torch.device) -> tuple[int, int]:
    """Rank and number of processes, from ``torchrun``."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size()
