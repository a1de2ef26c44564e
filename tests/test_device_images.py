"""Blocks of images for GPUs: made once, ahead, by several threads;
with the emulated engine and a CuPy of NumPy.
"""

import collections
import itertools
import threading
import time

import numpy as np
import pytest

import fake_cupy
import ntkcore as nk
from ntkcore import _core
from ntkcore.engine import cuda, device_images, lanes
from ntkcore.engine.tiles import banded, tiles
from ntkcore.specs.lowering import lower
from test_cuda import gpu, images  # noqa: F401

NAMES = ("nngp", "ntk")
NET = nk.cntk(2)
NORMALIZED = nk.Serial(
    nk.Conv((3, 3)),
    nk.Relu(),
    nk.GlobalAvgPool(),
    nk.Dense(),
    nk.LayerNorm(),
    nk.Relu(),
    nk.Dense(),
)


def counted(monkeypatch, name):
    """How often each image went through a function of _core, by its first pixel."""
    seen, inner, lock = collections.Counter(), getattr(_core, name), threading.Lock()

    def outer(program, backend, x, *more):
        with lock:
            seen.update(float(image[0, 0, 0]) for image in x)
        return inner(program, backend, x, *more)

    monkeypatch.setattr(_core, name, outer)
    return seen


@pytest.mark.parametrize("on_device", [True, False])
def test_every_image_is_prepared_once_a_device(gpu, monkeypatch, on_device):
    strips, diagonals = counted(monkeypatch, "image_strips"), counted(monkeypatch, "image_diagonal")
    x, z = images(150), images(90)
    devices = None if on_device else [0, 1]
    place = fake_cupy.asarray if on_device else np.asarray
    nk.kernel(NET, place(x), tile=16, backend="cuda", devices=devices, threads=3)
    assert len(strips) == len(diagonals) == 150
    assert set(strips.values()) == {1 if on_device else 2}
    assert set(diagonals.values()) == {1}
    strips.clear()
    nk.kernel(NET, place(x), place(z), tile=16, backend="cuda", threads=3)
    assert set(strips.values()) == {1}
    assert len(strips) == 240


def test_nothing_else_changes_the_bits(gpu, monkeypatch):
    x, z = images(100), images(70)
    for net, dtype in ((NET, "float32"), (NORMALIZED, "float64")):
        expected = [
            nk.kernel(net, x, other, NAMES, tile=16, backend="cuda", dtype=dtype)
            for other in (None, z)
        ]
        for streams, ahead, band, tile, threads, memory in [
            (1, 1, 1, 16, 1, 2**30),
            (3, 3, 2, 32, 5, 2**30),
            (2, 8, 8, 16, 2, 0),
            (2, 8, 1, 48, 2, 2**20),
        ]:
            for module, name, value in (
                (lanes, "STREAMS", streams),
                (cuda, "AHEAD", ahead),
                (cuda, "BAND", band),
            ):
                monkeypatch.setattr(module, name, value)
            monkeypatch.setattr(
                fake_cupy.cuda.runtime, "memGetInfo", lambda memory=memory: (memory, 2**30)
            )
            for other, wanted in zip((None, z), expected, strict=True):
                ours = nk.kernel(
                    net, x, other, NAMES, tile=tile, backend="cuda", threads=threads, dtype=dtype
                )
                for k in (0, 1):
                    np.testing.assert_array_equal(ours[k], wanted[k])


def test_the_diagonal_is_made_beside_the_tiles(gpu, monkeypatch):
    begun, inner, evaluate = threading.Event(), _core.image_diagonal, gpu.evaluate_images

    def diagonal(*arguments):
        assert begun.wait(10), "the first tile waits for the diagonal"
        return inner(*arguments)

    def first(*arguments):
        begun.set()
        evaluate(*arguments)

    monkeypatch.setattr(_core, "image_diagonal", diagonal)
    monkeypatch.setattr(gpu, "evaluate_images", first)
    x = images(40)
    K = nk.kernel(NET, x, tile=16, backend="cuda", threads=2)
    np.testing.assert_array_equal(np.diagonal(K), nk.kernel_diag(NET, x))


@pytest.mark.parametrize("name", ["image_strips", "image_diagonal"])
@pytest.mark.parametrize("net", [NET, NORMALIZED])
def test_errors_of_other_threads_arrive_as_they_are(gpu, monkeypatch, name, net):
    class FaultError(Exception):
        pass

    def fail(*arguments):
        raise FaultError("of a thread")

    monkeypatch.setattr(_core, name, fail)
    with pytest.raises(FaultError, match="of a thread"):
        nk.kernel(net, images(40), tile=16, backend="cuda")


def test_a_variance_that_overflows_names_its_sample_before_the_last_tile(gpu, monkeypatch):
    done, evaluate = [], gpu.evaluate_images

    def slow(*arguments):
        time.sleep(0.01)
        done.append(1)
        evaluate(*arguments)

    monkeypatch.setattr(gpu, "evaluate_images", slow)
    x = images(320, np.float32)
    x[13] *= 1e30
    with pytest.raises(ValueError, match="sample 13 has a variance"):
        nk.kernel(NET, x, tile=16, backend="cuda")
    assert len(done) < 210


def test_an_interruption_ends_the_work_in_the_background(gpu, monkeypatch):
    calls, threads = [], 2

    def slow(*arguments):
        calls.append(1)
        time.sleep(0.02)
        raise AssertionError("not looked at")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(_core, "image_diagonal", slow)
    monkeypatch.setattr(gpu, "evaluate_images", interrupted)
    monkeypatch.setattr(cuda.Diagonals, "check", lambda self: None)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        nk.kernel(NET, images(800), tile=16, backend="cuda", threads=threads)
    assert threading.active_count() == before
    assert len(calls) < 50  # of 100


def test_lack_of_memory_for_a_block_drops_the_others(gpu, monkeypatch):
    full = iter([False, False, True, *[False] * 100])

    def empty(shape, dtype, inner=fake_cupy.empty):
        if np.prod(shape) and next(full):
            raise MemoryError
        return inner(shape, dtype)

    x, z = fake_cupy.asarray(images(64)), fake_cupy.asarray(images(48))
    out = fake_cupy.empty((64, 48), np.float64)
    expected = fake_cupy.asnumpy(nk.kernel(NET, x, z))
    monkeypatch.setattr(fake_cupy, "empty", empty)
    np.testing.assert_array_equal(
        fake_cupy.asnumpy(nk.kernel(NET, x, z, tile=16, out=out)), expected
    )
    assert next(full) is False

    def never(shape, dtype):
        raise MemoryError

    monkeypatch.setattr(fake_cupy, "empty", never)
    with pytest.raises(MemoryError, match="free arrays"):
        nk.kernel(NET, x, z, tile=16, out=out)


def test_memory_is_given_back_only_after_its_readers(gpu, monkeypatch):
    """Whoever takes a dropped block's memory on the home stream comes
    after all that the lanes were told so far.
    """
    log = []

    class Home(fake_cupy.Stream):
        def wait_event(self, event):
            log.append(("waits for", event))

    class Reader(fake_cupy.Stream):
        def record(self):
            return "what was read"

    class Maker:
        nbytes = 2**40
        makers = device_images.ThreadPoolExecutor(1)

        def to_device(self, cupy, device, home, uploads, key):
            return device_images.Block([Witness(key)], [key[1]])

    class Witness:
        def __init__(self, key):
            self.key = key

        def __del__(self):
            log.append(("drops", self.key))

    monkeypatch.setattr(fake_cupy.cuda, "get_current_stream", Home)
    blocks = device_images.DeviceBlocks(fake_cupy, 0, [Reader(), Reader()], Maker())
    assert blocks.most == device_images.FEWEST == 4
    for i in range(4):
        assert blocks.get([(0, i)])[0].numbers == [i]
    assert log == []
    blocks.get([(0, 0), (1, 0)])  # the oldest is (0, 1)
    assert log == [("waits for", "what was read")] * 2 + [("drops", (0, 1))]


@pytest.mark.parametrize("symmetric", [True, False])
def test_bands_hold_every_tile_and_reuse_blocks(symmetric):
    work = tiles(100, 100, 10, 10, symmetric)
    for width in (1, 3, 8):
        order = banded(work, 10, width)
        assert sorted(order) == sorted(work)
        for before, after in itertools.pairwise(order):
            same_band = before[2] // 10 // width == after[2] // 10 // width
            assert not same_band or before[0] == after[0] or abs(before[0] - after[0]) == 10
            assert not same_band or before[0] != after[0] or abs(before[2] - after[2]) == 10


def test_strips_are_what_the_cpu_reads():
    """Pixels and features lane by lane; arrays of another shape or dtype are refused."""
    net = nk.Serial(nk.Conv((3, 3), padding="SAME"), nk.Relu(), nk.Flatten())
    for dtype, width in ((np.float32, 16), (np.float64, 8)):
        x = images(20, dtype)
        program = lower(net, x.shape[1:], wants_ntk=True)
        strips, backend = -(-20 // width), nk.backends()[0]
        pixels, table = np.empty((strips, 50 * width), dtype), np.empty((strips, 50 * width), dtype)
        _core.image_strips(program, backend, x, pixels, table)
        found = pixels.reshape(strips, 50, width).transpose(0, 2, 1).reshape(-1, 50)
        np.testing.assert_array_equal(found[:20], x.reshape(20, 50))
        q = (np.pad(x.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0))) ** 2).mean(3)
        q = sum(q[:, i : i + 5, j : j + 5] for i in range(3) for j in range(3)) / 9
        features = (
            table.reshape(strips, 5, 5, 2, width).transpose(0, 4, 1, 2, 3).reshape(-1, 5, 5, 2)[:20]
        )
        np.testing.assert_allclose(
            features[..., 1] / np.sqrt(q), features[0, 0, 0, 1] / np.sqrt(q[0, 0, 0]), rtol=1e-6
        )
        np.testing.assert_allclose(features[..., 0] * features[..., 1], 1, rtol=1e-6)
        wrong = np.float64 if dtype == np.float32 else np.float32
        for bad in (table[:1], table[:, 1:], table.astype(wrong), table.T):
            with pytest.raises(ValueError, match="strips of a wrong shape or dtype"):
                _core.image_strips(program, backend, x, pixels, bad)
        table.flags.writeable = False
        with pytest.raises(ValueError, match="writeable"):
            _core.image_strips(program, backend, x, pixels, table)


def test_strips_of_full_covariances():
    """A sample each: values channel by channel, features position by position."""
    net = nk.Serial(nk.ConvLocal((2,)), nk.Relu(), nk.Flatten())
    for dtype in (np.float32, np.float64):
        x = np.ascontiguousarray(images(4, dtype)[:, 0])
        program = lower(net, x.shape[1:], wants_ntk=True)
        lanes, width, rows = _core.strip_sizes(program, dtype == np.float64)
        assert lanes == 1
        values, table = np.empty((4, width), dtype), np.empty((4, rows), dtype)
        _core.image_strips(program, nk.backends()[0], x, values, table)
        np.testing.assert_array_equal(values.reshape(4, 2, -1)[..., :5], x.transpose(0, 2, 1))
        q = (x.astype(float) ** 2).mean(2)
        root = np.sqrt((q[:, 1:] + q[:, :-1]) / 2)
        inverse, feature = table.reshape(4, 2, -1)[..., :4].transpose(1, 0, 2)
        np.testing.assert_allclose(feature / root, feature[0, 0] / root[0, 0], rtol=1e-6)
        np.testing.assert_allclose(inverse * feature, 1, rtol=1e-6)
        with pytest.raises(ValueError, match="samples: strips of a wrong shape or dtype"):
            _core.image_strips(program, nk.backends()[0], x, values, table[:, 1:])
