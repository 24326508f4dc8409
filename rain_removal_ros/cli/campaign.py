"""Trains a queue of recipes for days, one per core: starts, shows or stops it.

    rain-removal campaign start config/train/campaign.yaml
    rain-removal campaign show config/train/campaign.yaml
    rain-removal campaign stop config/train/campaign.yaml

It trains at the lowest priority, so that other work can go on. A stop saves every run, and 'start'
continues where the campaign was stopped or killed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rain_removal_ros.training.campaign import Campaign


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("start", "run", "show", "stop"),
        help="start in the background, run in the foreground, show how far it is, stop it",
    )
    parser.add_argument("config", type=Path, help="the campaign, a YAML file")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="folder of its runs (default: runs)",
    )
    parser.add_argument(
        "--max-minutes", type=float, default=0.0, help="stop after this time; 0 for never"
    )


def run(args: argparse.Namespace) -> int:
    from rain_removal_ros.training import campaign as campaigns

    campaign = campaigns.load_campaign(args.config, args.runs.absolute())
    if args.action == "show":
        process = campaigns.at_work(campaign.runs)
        print(campaigns.table(campaign))
        print("not at work" if process is None else f"at work, process {process}")
    elif args.action == "stop":
        print("stopped" if campaigns.stop(campaign.runs) else "there was none at work")
    elif args.action == "start":
        print(f"at work, process {_start(args, campaign)}; its log is {_log(campaign)}")
    else:
        ended = campaigns.Supervisor(campaign, minutes=args.max_minutes).run()
        print(campaigns.table(campaign))
        print("done" if ended else "not done; the same command continues")
    return 0


def _start(args: argparse.Namespace, campaign: Campaign) -> int:
    """Run in a process of its own, which outlives this one."""
    from rain_removal_ros.errors import TrainingError
    from rain_removal_ros.training import campaign as campaigns

    with campaigns.only_one(campaign.runs):
        pass  # refused in the foreground, where it is visible
    command = [sys.executable, "-m", "rain_removal_ros", "campaign", "run", str(args.config)]
    command += ["--runs", str(campaign.runs), "--max-minutes", str(args.max_minutes)]
    with _log(campaign).open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + 30
    while campaigns.at_work(campaign.runs) != process.pid:
        if process.poll() is not None or time.monotonic() > deadline:
            raise TrainingError(f"it did not start: {campaigns.last_line(_log(campaign))}")
        time.sleep(0.1)
    return process.pid


def _log(campaign: Campaign) -> Path:
    return campaign.runs / "campaign.log"
