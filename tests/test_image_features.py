"""Random features of convolutional networks against exact kernels."""

import itertools
import pickle

import numpy as np
import pytest

import ntkcore as nk
from ntkcore import AvgPool, Conv, Dense, Flatten, GlobalAvgPool, Relu, Serial, kernel
from ntkcore.estimators import NNGPFeatures, NTKFeatures, image_features, sketches
from ntkcore.estimators.sketches import Block, PatchSketch

FACES = {"ntk": NTKFeatures, "nngp": NNGPFeatures}
HIDDEN = 64  # columns of a hidden layer here, so that patches are sketched
SAME = ((3, 3), (1, 1), "SAME", 1.3)
SHAPE = (4, 5, 2)


def images(n=4, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).standard_normal((n, *shape))


ONE = {
    "linear": (
        Serial(Conv(*SAME), AvgPool((2, 2)), Conv((2, 2)), Flatten(), Dense(0.7, 0.2)),
        SHAPE,
    ),
    "flat": (nk.cntk(1, "flatten"), SHAPE),
    "mean": (nk.cntk(1, "gap", 1.2, 0.5), SHAPE),
    "no read-out's weights": (Serial(Conv(*SAME, 0.4), Relu(), GlobalAvgPool()), SHAPE),
    "two slopes": (Serial(Conv(*SAME), nk.ABRelu(-0.5, 2.0), nk.GlobalSumPool(), Dense()), SHAPE),
    "absolute value": (Serial(Conv(*SAME, 0.2), nk.Abs(), Flatten(), Dense(2.0)), SHAPE),
    "strides": (Serial(Conv((3, 2), (2, 3), "SAME", 1.1), Relu(), Flatten(), Dense()), SHAPE),
    "around": (Serial(Conv((3, 3), (1, 1), "CIRCULAR", 1.2), Relu(), GlobalAvgPool()), SHAPE),
    "dilation": (Serial(Conv((2, 2), dilation=(2, 3)), Relu(), GlobalAvgPool(), Dense()), SHAPE),
    "sequences": (Serial(Conv((3,), (2,), "SAME", 1.3, 0.3), Relu(), Flatten(), Dense()), (7, 3)),
    "volumes": (Serial(Conv((2, 2, 2)), Relu(), GlobalAvgPool(), Dense(1.2)), (3, 3, 2, 1)),
    "pool before": (Serial(Conv(*SAME), AvgPool((2, 2)), Relu(), Flatten(), Dense()), SHAPE),
    "pool behind": (
        Serial(Conv(*SAME), Relu(), AvgPool((3, 3), (2, 2), "SAME"), Flatten(), Dense(1.0, 0.1)),
        SHAPE,
    ),
    "edges": (
        Serial(
            Conv(*SAME), Relu(), AvgPool((3, 3), (1, 1), "SAME", normalize_edges=True), Flatten()
        ),
        SHAPE,
    ),
    "sums": (
        Serial(
            Conv(*SAME), Relu(), nk.SumPool((2, 2), (2, 2), "CIRCULAR"), nk.Conv((2, 2)), Flatten()
        ),
        SHAPE,
    ),
    "pixels": (Serial(Dense(1.2, 0.3), Relu(), Conv(*SAME), Flatten(), Dense()), SHAPE),
    "flattened first": (Serial(Flatten(), Dense(1.2, 0.3), Relu(), Dense()), SHAPE),
}
DEEP = {
    "three": (nk.cntk(3, "gap", b_std=0.2), SHAPE),
    "three, flat": (nk.cntk(3, "flatten"), SHAPE),
    "pools": (
        Serial(
            Conv(*SAME),
            Relu(),
            AvgPool((2, 2), (2, 2)),
            Conv(*SAME, 0.3),
            Relu(),
            Flatten(),
            Dense(),
        ),
        SHAPE,
    ),
    "head": (
        Serial(Conv(*SAME), Relu(), GlobalAvgPool(), Dense(1.4, 0.1), nk.LeakyRelu(0.2), Dense()),
        SHAPE,
    ),
}


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(image_features, "FEWEST", HIDDEN)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("get", FACES)
@pytest.mark.parametrize("name", [*ONE, *DEEP])
def test_the_mean_is_the_kernel(name, get):
    """By the standard error over seeds; beyond one nonlinearity but for a bias of order 1/m."""
    (net, shape), seeds = (ONE | DEEP)[name], 60
    x, found = images(shape=shape), []
    for seed in range(seeds):
        Z = FACES[get](net, n_components=200, random_state=seed, threads=1).fit_transform(x)
        found.append(Z @ Z.T)
    K = kernel(net, x, get=get)
    scale = np.sqrt(np.outer(K.diagonal(), K.diagonal()))
    error = np.std(found, axis=0) / seeds**0.5
    bias = (3 if name in DEEP else 0) / HIDDEN
    apart = np.abs(np.mean(found, axis=0) - K)
    assert (apart <= 4.5 * error + bias * scale + 1e-9 * scale).all()
    assert (error < 0.03 * scale).all()  # so that it may fail


@pytest.mark.parametrize("get", FACES)
@pytest.mark.parametrize("head", ["gap", "flatten"])
def test_the_error_falls_as_one_over_the_root_of_the_size(get, head, monkeypatch):
    monkeypatch.setattr(image_features, "FEWEST", 1)
    x, net = images(6, (5, 5, 3)).astype("f4"), nk.cntk(2, head, b_std=0.2)
    K = kernel(net, x, get=get, dtype="f8")

    def error(size, seeds):
        draws = (FACES[get](net, n_components=size, random_state=seed) for seed in range(seeds))
        Z = [features.fit_transform(x) for features in draws]
        squares = [np.linalg.norm(z.astype(float) @ z.T - K) ** 2 for z in Z]
        return np.mean(squares) ** 0.5 / np.linalg.norm(K)

    small, large = error(128, 40), error(2048, 20)
    assert small / large > 2.8  # 4 and more, for larger ones are exact in more parts
    assert large < {("ntk", "gap"): 0.02, ("ntk", "flatten"): 0.06}.get((get, head), 0.04)


def test_a_linear_network_is_exact_in_few_features():
    x, net = images(), Serial(Conv(*SAME, 0.3), Conv((3, 3)), GlobalAvgPool(), Dense())
    Z = NNGPFeatures(net, n_components=400).fit_transform(x)
    assert Z.shape == (4, 9 * (9 * 2 + 1))
    np.testing.assert_allclose(Z @ Z.T, kernel(net, x, get="nngp"), rtol=1e-12)


@pytest.mark.parametrize("padding", ["SAME", "VALID", "CIRCULAR"])
@pytest.mark.parametrize(
    ("window", "strides", "dilation"), [((3, 2), (1, 1), (1, 1)), ((2, 3), (2, 1), (1, 2))]
)
def test_windows_read_these_pixels(padding, window, strides, dilation):
    """A convolution's kernel of images with one pixel is 1 at pairs whose windows meet there."""
    shape = (5, 6)
    layer = Conv(window, strides, padding, dilation=dilation)
    sources = image_features.sources_of(layer, shape)
    for p in range(30):
        x = np.zeros((1, *shape, 1))
        x.reshape(-1)[p] = 1
        exact = kernel(Serial(layer, GlobalAvgPool()), x, get="nngp")[0, 0]
        reads = (sources == p).sum(1)  # by each tap, how many outputs do
        assert (reads**2).sum() / len(sources) / sources.shape[1] ** 2 == pytest.approx(exact)


class TestPatches:
    BLOCKS = (Block(3, 1.0), Block(1, 2.0), Block(4, 0.0), Block(6, 1.0))

    def sources(self):
        return np.array([[0, 1, 2], [1, 2, -1]])

    def test_are_whole_where_they_fit(self):
        sketch = PatchSketch.of(self.sources(), self.BLOCKS, 20, np.random.default_rng(0), "f8")
        assert sketch.blocks == (Block(6, 1.0), Block(2, 2.0), Block(12, 1.0))
        v = images(2, (3, 14))
        v[..., 4:8] = 0  # a block of no energy is left out
        out = sketch(v)
        taps = np.stack([v[:, 0], v[:, 1]], 2), np.stack([v[:, 2], 0 * v[:, 2]], 2)
        for output, expected in ((0, taps[0]), (2, taps[1])):
            ours = np.einsum("nc,mc->nm", out[:, output], out[:, output])
            np.testing.assert_allclose(ours, np.einsum("nct,mct->nm", expected, expected))

    def test_keep_inner_products_in_the_mean(self):
        v, found = images(2, (3, 14)), []
        v[..., 4:8] = 0
        for seed in range(2000):
            rng = np.random.default_rng(seed)
            sketch = PatchSketch.of(self.sources(), self.BLOCKS, 9, rng, "f8")
            assert [block.width for block in sketch.blocks] == [2, 7]
            out = sketch(v)
            assert out.shape == (2, 3, 9)
            found.append((out[0, 0] @ out[1, 1], out[0, 1] @ out[1, 2]))
        exact = v[0, 0] @ v[1, 1] + v[0, 1] @ v[1, 2], v[0, 1] @ v[1, 2]
        error = np.std(found, axis=0) / len(found) ** 0.5
        assert (np.abs(np.mean(found, axis=0) - exact) < 4 * error).all()
        assert (error < 0.2).all()


@pytest.mark.parametrize("face", FACES.values())
class TestDraws:
    NET = nk.cntk(2, b_std=0.4)

    def test_are_those_of_random_state(self, face):
        x = images(9)
        first, again, other = (
            face(self.NET, n_components=80, random_state=seed).fit(x) for seed in (3, 3, 4)
        )
        np.testing.assert_array_equal(first.transform(x), again.transform(x))
        np.testing.assert_array_equal(first.transform(x), first.fit(x[:1]).transform(x))
        assert np.abs(first.transform(x) - other.transform(x)).max() > 0.1
        assert first.transform(x).shape == (9, 80)
        same = pickle.loads(pickle.dumps(first))
        np.testing.assert_array_equal(same.transform(x), first.transform(x))
        assert len(first.get_feature_names_out()) == 80

    def test_do_not_depend_on_batches_or_threads(self, face, monkeypatch):
        x = images(9)
        model = face(self.NET, n_components=80, random_state=0).fit(x)
        whole = model.transform(x)
        monkeypatch.setattr(sketches, "BATCH", 50)
        np.testing.assert_allclose(model.transform(x), whole, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(
            model.set_params(threads=3).transform(x), model.set_params(threads=1).transform(x)
        )

    def test_of_both_precisions_agree(self, face):
        double, single = (
            face(self.NET, n_components=300, random_state=0).fit_transform(images().astype(dtype))
            for dtype in ("f8", "f4")
        )
        assert (double.dtype, single.dtype) == (np.float64, np.float32)
        assert np.abs(double @ double.T - single @ single.T).max() < 2e-2

    def test_of_any_magnitude(self, face):
        x = images().astype("f4")
        model = face(nk.cntk(2, "flatten"), n_components=64, random_state=0).fit(x)
        one = model.transform(x)
        for power in (-100, -40, 40, 120):
            np.testing.assert_array_equal(model.transform(np.ldexp(x, power)), np.ldexp(one, power))
        assert not model.transform(0 * x).any()
        biased = face(self.NET, n_components=2000, random_state=0).fit(images())
        Z, nothing = biased.transform(1e-200 * images()), np.zeros((1, *SHAPE))
        expected = kernel(self.NET, nothing, get=face._get)[0, 0]
        np.testing.assert_allclose(Z @ Z.T, expected, rtol=0.1)
        assert model.transform(images(1, seed=5).astype("f4")).dtype == np.float32

    def test_of_few_features(self, face):
        for size, net in itertools.product((1, 2, 7, 33), (self.NET, nk.cntk(2, "flatten"))):
            Z = face(net, n_components=size, random_state=0).fit_transform(images())
            assert Z.shape[1] <= size
            assert np.isfinite(Z).all()


@pytest.mark.parametrize(
    ("net", "layer"),
    [
        (Serial(Conv(*SAME), nk.Erf(), Flatten()), r"Erf\(\)"),
        (Serial(Conv((3, 3), parameterization="standard"), Relu(), Flatten()), "standard"),
        (Serial(nk.ConvLocal((3, 3)), Relu(), Flatten()), r"ConvLocal\("),
        (Serial(nk.ConvTranspose((2, 2)), Relu(), Flatten()), r"ConvTranspose\("),
        (Serial(Conv(*SAME), nk.LayerNorm(), Relu(), Flatten()), r"LayerNorm\("),
        (Serial(Conv(*SAME), Relu(), nk.LocalAvgPool(3)), r"LocalAvgPool\("),
        (nk.resnet(), r"Residual\("),
    ],
)
def test_networks_of_unknown_features_are_refused_by_name(net, layer):
    with pytest.raises(ValueError, match=rf"NTKFeatures: no random features .*{layer}.*Nystroem"):
        NTKFeatures(net).fit(images())


def test_what_does_not_fit_is_refused():
    x, net = images(), nk.cntk(1)
    model = NTKFeatures(net, n_components=20).fit(x)
    for call, words in (
        (
            lambda: model.transform(images(shape=(4, 4, 2))),
            r"X has samples of shape \(4, 4, 2\), fit",
        ),
        (lambda: model.transform(x[0]), "samples of shape|features"),
        (lambda: NTKFeatures(net).fit(x[:, 0, 0]), "no random features are known of Conv"),
        (lambda: NTKFeatures(net).fit(x[0]), "axes"),
        (lambda: NTKFeatures(net).fit(x * np.nan), "NaN"),
        (lambda: NTKFeatures(Serial(Conv((3, 3)), Relu())).fit(x), "ends with an image"),
        (lambda: NTKFeatures(Serial(Relu(), Flatten())).fit(x), "needs a Gaussian input"),
        (lambda: NTKFeatures(Serial(Conv((9, 9)), Flatten())).fit(x), "leaves no pixel"),
        (lambda: NTKFeatures(nk.cntk(1, W_std=0.0)).fit(x), "the kernel of this network is 0"),
        (lambda: NTKFeatures(Serial(GlobalAvgPool())).fit(x), "the kernel of this network is 0"),
        (lambda: NTKFeatures().fit(x), r"of images pass x.reshape\(len\(x\), -1\)"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
