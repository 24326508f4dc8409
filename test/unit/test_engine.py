"""The torch engine: padding, batches, memory, compilation, precision and stages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rain_removal_ros import checkpoints, engines, networks
from rain_removal_ros.engines import Derained
from rain_removal_ros.engines import torch as torch_engine
from rain_removal_ros.engines._schedule import Schedule
from rain_removal_ros.engines.torch import TorchEngine
from rain_removal_ros.errors import CheckpointError, EngineError, SettingsError
from rain_removal_ros.frames import Image
from rain_removal_ros.networks import _base
from rain_removal_ros.networks._base import Facts, Output, State
from rain_removal_ros.settings import EngineSettings, NetworkSettings, build


@dataclass(frozen=True)
class Config:
    scale: int = 1
    gives_nan: bool = False
    """Whether the output is NaN."""


class Identity(_base.Network):
    """Returns its frame as the derained picture and as the state."""

    facts: ClassVar[Facts] = Facts(paper="", recurrent=True, stride=8)

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config or Config())
        self.seen: list[Tensor] = []

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        self.seen.append(frame.clone())
        derained = frame.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)
        if self.config.gives_nan:
            derained = derained / 0 * 0
        return Output(derained, frame[:, :1], (frame,), frame.mean((1, 2, 3)))


def engine(network: _base.Network, **changes: object) -> TorchEngine:
    settings = {"device": "cpu", "precision": "float32", **changes}
    return TorchEngine(network, build(EngineSettings, settings))


def noise(height: int, width: int, *, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [(16, 24), (37, 53), (1, 1), (8, 1), (1, 9)])
def test_an_identity_network_returns_the_same_bytes(size: tuple[int, int], precision: str) -> None:
    image = noise(*size)
    (result,) = engine(Identity(), precision=precision).step([image], [None])
    assert np.array_equal(result.image, image)
    assert result.attention is not None
    assert np.array_equal(result.attention, image[..., 0])


def test_every_byte_value_is_returned_exactly() -> None:
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(engine(Identity()).step([image], [None])[0].image, image)


def test_frames_are_padded_to_the_stride_with_their_last_row_and_column() -> None:
    network = Identity()
    image = noise(13, 21)
    engine(network).step([image], [None])
    (seen,) = network.seen
    expected = np.pad(image, ((0, 3), (0, 3), (0, 0)), mode="edge").transpose(2, 0, 1) / 255
    assert seen.shape == (1, 3, 16, 24)
    assert seen.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(seen[0].numpy(), expected, atol=1e-6)


def test_padding_contains_nothing_of_a_previous_larger_frame() -> None:
    network = Identity()
    one = engine(network)
    one.step([noise(16, 16)], [None])
    one.step([np.full((10, 10, 3), 51, np.uint8)], [None])
    torch.testing.assert_close(network.seen[1], torch.full((1, 3, 16, 16), 0.2))


def test_read_only_views_with_padded_rows_are_accepted() -> None:
    """Images of ROS messages can be read-only and have padded rows."""
    buffer = noise(20, 40)
    view = buffer[:, 3:33]
    view.flags.writeable = False
    (result,) = engine(Identity()).step([view], [None])
    assert np.array_equal(result.image, view)


def test_the_output_of_an_enlarging_network_is_cropped_at_its_scale() -> None:
    image = noise(13, 21)
    (result,) = engine(Identity(Config(scale=2))).step([image], [None])
    assert np.array_equal(result.image, image.repeat(2, 0).repeat(2, 1))
    assert result.attention is not None
    assert result.attention.shape == (13, 21)


def test_a_batch_equals_its_frames_one_by_one() -> None:
    one = engine(networks.create("prenet", channels=4, stages=2))
    images = [noise(20, 28, seed=seed) for seed in range(3)]
    first = one.step(images, [None] * 3)
    together = one.step(images, [result.state for result in first])
    for image, result in zip(images, together, strict=True):
        (before,) = one.step([image], [None])
        (alone,) = one.step([image], [before.state])
        assert np.abs(result.image.astype(int) - alone.image).max() <= 1


def test_later_steps_do_not_change_an_earlier_state() -> None:
    """The network returns its input tensor as state, and the engine reuses the input buffer."""
    one = engine(Identity())
    (first,) = one.step([np.full((8, 8, 3), 51, np.uint8)], [None])
    one.step([noise(8, 8)], [first.state])
    torch.testing.assert_close(first.state[0], torch.full((1, 3, 8, 8), 0.2))


def test_the_result_is_written_into_a_given_array() -> None:
    image = noise(13, 21)
    padded = np.zeros((13, 30, 3), np.uint8)
    target = padded[:, :21]
    (result,) = engine(Identity()).step([image], [None], attention=False, into=[target])
    assert result.image is target
    assert np.array_equal(target, image)
    assert not padded[:, 21:].any()
    assert result.attention is None


def test_each_image_of_a_batch_gets_its_own_rain_level() -> None:
    images = [np.full((8, 8, 3), value, np.uint8) for value in (0, 51, 255)]
    levels = [result.rain_level for result in engine(Identity()).step(images, [None] * 3)]
    assert levels == pytest.approx([0.0, 0.2, 1.0])


def test_non_finite_output_raises() -> None:
    with pytest.raises(EngineError, match="gave values that are not finite"):
        engine(Identity(Config(gives_nan=True))).step([noise(8, 8)], [None])


def test_a_failure_in_the_network_gives_a_one_line_error() -> None:
    one = engine(networks.create("prenet", channels=4, stages=1))
    (before,) = one.step([noise(16, 16)], [None])
    with pytest.raises(EngineError, match="prenet failed: ") as raised:
        one.step([noise(24, 24)], [before.state])
    assert "\n" not in str(raised.value)


class LowMemory(Identity):
    """Raises ``error`` for batches of more than ``room`` frames."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.room, self.error = room, error

    def forward(self, frame: Tensor, state: State = ()) -> Output:
        if len(frame) > self.room:
            raise self.error
        return super().forward(frame, state)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        MemoryError(),
    ],
    ids=["GPU", "CPU", "driver", "library", "numpy"],
)
def test_out_of_memory_makes_batches_smaller_for_good(error: Exception) -> None:
    network = LowMemory(2, error)
    one = engine(network)
    images = [noise(8, 8, seed=seed) for seed in range(5)]
    results = one.step(images, [None] * 5)
    for image, result in zip(images, results, strict=True):
        assert np.array_equal(result.image, image)
    assert [len(seen) for seen in network.seen] == [2, 2, 1]
    assert one.note == "out of memory with 5 cameras at once; now 2"
    again = one.step(images, [result.state for result in results])
    assert np.array_equal(again[4].image, images[4])
    assert len(network.seen) == 6
    network.room = 0
    with pytest.raises(EngineError, match="out of memory on cpu at 8x8"):
        one.step(images, [None] * 5)


def test_on_a_cpu_only_small_frames_are_batched() -> None:
    network = Identity()
    one = engine(network)
    for size, batches in (((240, 320), [4, 1]), ((360, 480), [1, 1, 1, 1, 1])):
        network.seen.clear()
        images = [noise(*size, seed=seed) for seed in range(5)]
        results = one.step(images, [None] * 5)
        assert [len(seen) for seen in network.seen] == batches
        for image, result in zip(images, results, strict=True):
            assert np.array_equal(result.image, image)


class FakeTraffic:
    """Stands in for the transfers of a GPU: results are zero until they are waited for."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def memory(self, shape: Sequence[int], kind: torch.dtype = torch.uint8) -> Tensor:
        return torch.empty(*shape, dtype=kind)

    def up(self, values: Tensor) -> Tensor:
        self.done.append("up")
        return values.clone()

    def down(self, values: Sequence[Tensor]) -> tuple[list[Tensor], Callable[[], object]]:
        here = [torch.zeros_like(each) for each in values]

        def wait() -> None:
            self.done.append("down")
            for target, each in zip(here, values, strict=True):
                target.copy_(each)

        return here, wait


def gpu_like(network: _base.Network) -> tuple[TorchEngine, FakeTraffic]:
    """An engine that works as on a GPU, without one, in batches of two small frames."""
    one, traffic = engine(network), FakeTraffic()
    one._transfers = traffic  # type: ignore[assignment]
    one._schedule = Schedule(2 * 40 * 56, under_way=2, said=one._say)
    return one, traffic


def test_with_a_gpu_results_are_copied_back_while_the_next_batch_is_computed() -> None:
    torch.manual_seed(0)
    network = networks.create("rainstream", channels=8, blocks=1)
    beside, traffic = gpu_like(network)
    plain = engine(network)
    images = [noise(37, 53, seed=seed) for seed in range(5)]
    targets: list[Image | None] = [np.zeros((37, 53, 3), np.uint8), None, None, None, None]
    before: list[Derained] = []
    for _ in range(2):
        states = [each.state for each in before] or [None] * 5
        wanted = [plain.step([i], [s])[0] for i, s in zip(images, states, strict=True)]
        traffic.done.clear()
        before = beside.step(images, states, into=targets)
        assert traffic.done == ["up", "up", "down", "up", "down", "down"]
        assert before[0].image is targets[0]
        for ours, theirs in zip(before, wanted, strict=True):
            assert np.abs(ours.image.astype(int) - theirs.image).max() <= 1
            assert ours.attention is not None
            assert theirs.attention is not None
            assert np.abs(ours.attention.astype(int) - theirs.attention).max() <= 1
            assert ours.rain_level == pytest.approx(theirs.rain_level, abs=1e-4)
    assert beside.step(images[:1], [None], attention=False)[0].attention is None


def test_with_a_gpu_out_of_memory_repeats_the_batches_under_way() -> None:
    beside, _ = gpu_like(LowMemory(1, torch.OutOfMemoryError("CUDA out of memory")))
    images = [noise(40, 56, seed=seed) for seed in range(3)]
    for image, result in zip(images, beside.step(images, [None] * 3), strict=True):
        assert np.array_equal(result.image, image)
    assert beside.note == "out of memory with 2 cameras at once; now 1"


def test_with_a_gpu_non_finite_output_raises() -> None:
    beside, _ = gpu_like(Identity(Config(gives_nan=True)))
    with pytest.raises(EngineError, match="not finite"):
        beside.step([noise(40, 56)] * 3, [None] * 3)


class FakeCompiler:
    """Stands in for ``torch.compile``, which takes minutes, and records the sizes run compiled."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.broken = False
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, network: Identity, **options: object) -> Callable[..., Output]:
        def compiled(frames: Tensor, state: State) -> Output:
            self.go_on.wait(30)
            if self.broken:
                raise RuntimeError("no compiler\nand more")
            self.calls.append(tuple(frames.shape[2:]))
            return network.forward(frames, state)

        return compiled


def test_the_first_size_is_compiled_at_once_and_others_in_the_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiler = FakeCompiler()
    monkeypatch.setattr(torch, "compile", compiler)
    compiler.go_on.set()
    one = engine(Identity(), compile=True)
    (first,) = one.step([noise(8, 8)], [None])
    assert compiler.calls.count((8, 8)) > 1
    compiler.go_on.clear()
    larger = noise(16, 16)
    (second,) = one.step([larger], [None])  # would hang here if it waited for the compiler
    assert np.array_equal(second.image, larger)
    assert one.note == "compiling for 16x16, uncompiled meanwhile"
    assert (16, 16) not in compiler.calls
    compiler.go_on.set()
    join_compilation()
    assert one.note == ""
    before = compiler.calls.count((16, 16))
    one.step([larger], [second.state])
    assert compiler.calls.count((16, 16)) == before + 1
    one.step([noise(8, 8)], [first.state])
    assert compiler.calls[-1] == (8, 8)


def test_a_failed_compilation_raises_at_the_first_size_and_is_noted_at_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiler = FakeCompiler()
    monkeypatch.setattr(torch, "compile", compiler)
    compiler.go_on.set()
    one = engine(Identity(), compile=True)
    one.step([noise(8, 8)], [None])
    compiler.broken = True
    larger = noise(16, 16)
    one.step([larger], [None])
    join_compilation()
    assert one.note == "uncompiled for 16x16: no compiler"
    assert np.array_equal(one.step([larger], [None])[0].image, larger)
    with pytest.raises(EngineError, match=r"failed: no compiler$"):
        engine(Identity(), compile=True).step([noise(8, 8)], [None])


def test_every_size_stays_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch traces the network, but the traced graph runs uncompiled."""
    real, ran = torch.compile, []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        def run(*inputs: Tensor) -> object:
            ran.append(graph)
            return graph.forward(*inputs)

        return run

    def traced(network: nn.Module, *, mode: object, **options: Any) -> object:
        return real(network, backend=backend, **options)

    torch.compiler.reset()
    monkeypatch.setattr(torch._dynamo.config, "cache_size_limit", 8)  # the default of torch
    monkeypatch.setattr(torch, "compile", traced)
    one = engine(networks.create("prenet", channels=2, stages=1), compile=True)
    for side in range(8, 80, 8):
        (first,) = one.step([noise(side, 8)], [None])
        join_compilation()
        before = len(ran)
        one.step([noise(side, 8)], [first.state])
        assert len(ran) > before, side


def join_compilation() -> None:
    for thread in threading.enumerate():
        if thread.name == "compile":
            thread.join(30)


def test_bfloat16_is_within_a_few_grey_levels_of_float32() -> None:
    def derained(precision: str) -> Image:
        torch.manual_seed(0)
        network = networks.create("prenet", channels=8, stages=2)
        one = engine(network, precision=precision)
        assert one.info.precision == precision
        return one.step([noise(32, 32)], [None])[0].image

    difference = np.abs(derained("bfloat16").astype(int) - derained("float32"))
    assert 0 < difference.max() <= 8
    assert difference.mean() <= 1


def test_only_convolutions_have_weights_of_reduced_precision() -> None:
    network = networks.create("deform_resnet", channels=8, bottleneck=8, blocks=1)
    engine(network, precision="bfloat16")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.dtype == torch.bfloat16
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.dtype == torch.float32


def test_stages_can_be_chosen_at_each_step() -> None:
    network = networks.create("prenet", channels=4)
    one = engine(network)
    assert one.info.stages == 6
    images, states = [noise(16, 16)], [None]
    (full,), (two,) = one.step(images, states), one.step(images, states, stages=2)
    assert not np.array_equal(full.image, two.image)
    built_so = engine(networks.create("prenet", channels=4, stages=2))
    built_so._network.load_state_dict(network.state_dict())
    assert np.array_equal(built_so.step(images, states)[0].image, two.image)
    assert np.array_equal(one.step(images, states)[0].image, full.image)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:99", "cuda:99 is not there: torch sees [0-9]+ CUDA devices; try auto or cpu"),
        ("quantum", "no device is called 'quantum'; use auto, cpu, cuda or cuda:N"),
        ("meta", "meta is not supported"),
    ],
)
def test_a_device_that_does_not_exist_is_refused(device: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        engine(Identity(), device=device)


def test_a_weight_file_of_another_network_is_refused(tmp_path: object) -> None:
    path = f"{tmp_path}/weights.safetensors"
    checkpoints.save(path, networks.create("prenet", channels=4), {})  # type: ignore[arg-type]
    cpu = EngineSettings(device="cpu")
    with pytest.raises(CheckpointError, match="holds weights of prenet, not of rranet"):
        engines.load(NetworkSettings(name="rranet", weights=path), cpu)
    with pytest.raises(SettingsError, match="'rainstream_xl'; there are rainstream_l"):
        engines.load(NetworkSettings(name="rainstream_xl"), cpu)
    loaded = engines.load(NetworkSettings(weights=path, stages=3), cpu)
    assert (loaded.info.network, loaded.info.stages) == ("prenet", 3)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(16, 24), (37, 53), (1, 1)])
def test_an_identity_network_on_a_gpu_returns_the_same_bytes(size: tuple[int, int]) -> None:
    image = noise(*size)
    one = engine(Identity(), device="cuda")
    for _ in range(3):  # later steps reuse memory
        (result,) = one.step([image], [None])
        assert np.array_equal(result.image, image)


@pytest.mark.gpu
def test_cameras_on_a_gpu_are_not_mixed_up_when_copies_overlap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_engine, "_GPU_BATCH", 480 * 640)
    one = engine(Identity(), device="cuda")
    images = [noise(480, 640, seed=seed) for seed in range(8)]
    for _ in range(20):
        for image, result in zip(images, one.step(images, [None] * 8), strict=True):
            assert np.array_equal(result.image, image)
        images = images[1:] + images[:1]


@pytest.mark.gpu
def test_a_cuda_graph_gives_the_results_of_the_network_for_new_and_old_states() -> None:
    """A CUDA graph always writes to the same memory, so the engine must copy its results."""
    plain, graphed = (
        engines.load(
            NetworkSettings(name="rainstream"), EngineSettings(device="cuda", compile=compiled)
        )
        for compiled in (False, True)
    )
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 96, 128, 3), np.uint8)
    kept: list[list[Derained]] = [[], []]
    for frame in frames:
        for engine, results in zip((plain, graphed), kept, strict=True):
            state = results[-1].state if results else None
            results += engine.step([frame], [state])
    for ours, theirs in zip(*kept, strict=True):
        assert np.abs(ours.image.astype(int) - theirs.image).max() <= 2
    # Three frames later, the first state still gives the same result.
    again = [
        engine.step([frames[1]], [results[0].state])[0]
        for engine, results in zip((plain, graphed), kept, strict=True)
    ]
    assert np.abs(again[0].image.astype(int) - again[1].image).max() <= 2
    assert np.abs(again[1].image.astype(int) - kept[1][1].image).max() <= 2
