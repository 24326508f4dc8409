"""Times a training step of rainstream on this machine, data in memory: pixels per second.

    python benchmarks/training_step.py [--model NAME] [--threads N] [--steps N]

Stills are four crops of 304 x 208, clips one of four frames: what config/train's recipes use.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from rain_removal_ros import checkpoints, networks
from rain_removal_ros.networks._base import Batch
from rain_removal_ros.runtime.allocator import keep_freed_memory
from rain_removal_ros.training.optimisation import create_optimiser
from rain_removal_ros.training.recipe import OptimiserSettings

HEIGHT, WIDTH, PICTURES = 208, 304, 4
KINDS = {"stills": (PICTURES, 1), "clip": (1, PICTURES)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="rainstream", help="shipped weights to begin with")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    for kind, (batch, frames) in KINDS.items():
        seconds, losses = timed(args.model, batch, frames, args.steps)
        pixels = PICTURES * HEIGHT * WIDTH / seconds / 1e6
        shown = ", ".join(f"{name} {value:.5f}" for name, value in losses.items())
        print(f"{args.model} {kind}: {seconds:.3f} s, {pixels:.2f} megapixels/s; at first {shown}")


def timed(model: str, batch: int, frames: int, steps: int) -> tuple[float, dict[str, float]]:
    """The median time of a step, and the losses of the first."""
    network = checkpoints.load(checkpoints.resolve(model)).network
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = networks.module("rainstream").Objective(network.train())
    optimiser = create_optimiser("network", list(network.parameters()), OptimiserSettings())
    samples = data(batch, frames)
    seconds, first = [], {}
    for step in range(steps + 2):  # two to warm up
        started = time.perf_counter()
        objective.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            losses = objective(samples, "network")
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step == 0:
            first = {name: float(value.detach()) for name, value in losses.items()}
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:]), first


def data(batch: int, frames: int) -> Batch:
    """A smooth scene with streaks that move from frame to frame."""
    torch.manual_seed(0)
    rough = torch.rand(batch, 3, HEIGHT // 8, WIDTH // 8)
    scene = F.interpolate(rough, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)
    reference = scene[:, None].expand(-1, frames, -1, -1, -1).contiguous()
    streaks = (torch.rand(batch, frames, 1, HEIGHT // 8, WIDTH) > 0.97).float()
    streaks = streaks.repeat_interleave(8, 3)
    return Batch((reference + 0.3 * streaks).clamp(0, 1), reference)


if __name__ == "__main__":
    main()
