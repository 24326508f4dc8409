"""Which GPUs this machine has. Asking the driver avoids importing anything heavy."""

from __future__ import annotations

import ctypes
import re

from rain_removal_ros.errors import SettingsError


def cuda_devices() -> int:
    """The number of GPUs that the CUDA driver offers to this process; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def check_device(device: str) -> None:
    """Refuse a device that has no such name, or a CUDA device that does not exist."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise SettingsError(
            f"engine.device: no device is called {device!r}; use auto, cpu, cuda or cuda:N"
        )
    if not device.startswith("cuda"):
        return
    there = cuda_devices()
    _, _, number = device.partition(":")
    if not there:
        raise SettingsError(f"engine.device: {device}, but no CUDA device is found here; use auto")
    if number and int(number) >= there:
        raise SettingsError(f"engine.device: {device}, but there are {there} CUDA devices here")
