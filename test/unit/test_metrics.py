"""The metrics equal those of scikit-image and their definitions."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rain_removal_ros import losses, metrics
from rain_removal_ros.simulation.drive import Drive

Image = NDArray[np.uint8]


def scene(height: int = 203, width: int = 191, seed: int = 0) -> Image:
    """A picture of blobs of several sizes, so that every scale has contrast."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for size in (4, 16, 64):
        noise = rng.random((height // size + 2, width // size + 2, 3))
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture / 3 * 255, 0, 255).astype(np.uint8)


def noisy(image: Image, sigma: float, seed: int = 1) -> Image:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


def test_luma_equals_that_of_scikit_image() -> None:
    image = scene()
    assert metrics.luma(image) == pytest.approx(rgb2ycbcr(image)[..., 0], abs=1e-9)
    black, white = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)
    assert metrics.luma(black)[0, 0] == pytest.approx(16)
    assert metrics.luma(white)[0, 0] == pytest.approx(235)


@pytest.mark.parametrize("sigma", [1, 10, 60])
def test_psnr_and_ssim_equal_those_of_scikit_image(sigma: float) -> None:
    reference = scene()
    image = noisy(reference, sigma)
    scores = metrics.score(image, reference)
    wang = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 255,
    }
    y = [rgb2ycbcr(each)[..., 0] for each in (reference, image)]
    assert scores.psnr_y == pytest.approx(peak_signal_noise_ratio(*y, data_range=255), abs=1e-9)
    assert scores.ssim_y == pytest.approx(structural_similarity(*y, **wang), abs=1e-9)
    assert scores.psnr_rgb == pytest.approx(
        peak_signal_noise_ratio(reference, image, data_range=255), abs=1e-9
    )
    assert scores.ssim_rgb == pytest.approx(
        structural_similarity(reference, image, channel_axis=2, **wang), abs=1e-9
    )


@pytest.mark.parametrize("size", [(203, 191), (90, 64), (30, 200)])
def test_ms_ssim_equals_the_training_loss(size: tuple[int, int]) -> None:
    reference = scene(*size)
    image = noisy(reference, 25)
    planes = [metrics.luma(each) for each in (image, reference)]
    tensors = [torch.from_numpy(plane / 255)[None, None].double() for plane in planes]
    expected = float(losses.ms_ssim(*tensors))
    assert metrics.ms_ssim(*planes) == pytest.approx(expected, abs=2e-5)


def test_noise_lowers_ms_ssim_less_than_ssim() -> None:
    reference = scene()
    scores = metrics.score(noisy(reference, 20), reference)
    assert scores.ssim_y < scores.ms_ssim < 1


def test_equal_pictures_get_the_highest_scores() -> None:
    image = scene()
    assert metrics.score(image, image) == pytest.approx((metrics.MOST_DB, 1, metrics.MOST_DB, 1, 1))


def test_psnr_of_one_grey_level_equals_its_formula() -> None:
    image = np.full((20, 20), 100, np.uint8)
    assert metrics.psnr(image, image + 1) == pytest.approx(20 * math.log10(255))


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (7, 7), (10, 11)])
def test_pictures_smaller_than_the_window_are_scored(size: tuple[int, int]) -> None:
    reference = scene(*size)
    different = np.asarray(255 - reference, np.uint8)
    assert metrics.score(reference, reference).ssim_y == pytest.approx(1)
    assert metrics.score(different, reference).ssim_y < 1


def test_the_order_of_two_pictures_does_not_matter() -> None:
    first, second = scene(seed=1), scene(seed=2)
    assert metrics.score(first, second) == pytest.approx(metrics.score(second, first))


def test_a_clip_that_changes_as_its_reference_does_not_flicker() -> None:
    reference = [metrics.luma(scene(seed=seed)) for seed in range(2)]
    tinted = [plane + 9 for plane in reference]
    assert metrics.flicker(*tinted, *reference) == pytest.approx(0)
    assert metrics.flicker(tinted[0], tinted[1] + 4, *reference) == pytest.approx(4)


@pytest.fixture(scope="module")
def drive() -> Drive:
    return Drive(seed=3, width=160, height=120)


def test_a_frame_moved_along_its_flow_is_the_next_one(drive: Drive) -> None:
    before, now = drive.frame(40), drive.frame(41)
    planes = metrics.luma(before.image), metrics.luma(now.image)
    seen = metrics.Correspondence(now.flow, *planes)
    assert seen.followed.mean() > 0.7
    error = seen.warping_error(*planes)
    assert error is not None
    assert error < np.abs(planes[1] - planes[0])[seen.followed].mean()
    brighter = seen.warping_error(planes[0], planes[1] + 20)
    assert brighter == pytest.approx(20, abs=2)


def test_there_is_no_warping_error_without_flow(drive: Drive) -> None:
    first = drive.frame(0)
    plane = metrics.luma(first.image)
    assert metrics.Correspondence(first.flow, plane, plane).warping_error(plane, plane) is None
