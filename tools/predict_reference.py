"""Makes tests/data/predict_reference.npz: predictions of neural-tangents 0.6.5 in float64,
for tests/test_predict.py.

    <a Python with neural-tangents 0.6.5> tools/predict_reference.py

Kernels (x, x'), (4-axis) full kernels and targets are stored
beside what neural-tangents makes of them.
"""

from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
from neural_tangents import predict, stax  # noqa: E402

TIMES = np.array([[0.0, 0.8], [25.0, 4e3]])


def put(out: dict, name: str, value: object) -> None:
    """Arrays under their name, tuples and namedtuples under name/field."""
    if hasattr(value, "_fields"):
        for field in value._fields:
            put(out, f"{name}/{field}", getattr(value, field))
    elif isinstance(value, tuple):
        for field, part in zip(("train", "test"), value, strict=True):
            put(out, f"{name}/{field}", part)
    else:
        out[name] = np.asarray(value)


def main() -> None:
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((7, 3)), rng.standard_normal((4, 3))
    y, f0, g0 = (
        rng.standard_normal((7, 2)),
        rng.standard_normal((7, 2)),
        rng.standard_normal((4, 2)),
    )
    _, _, kernel_fn = stax.serial(
        stax.Dense(64, 1.4, 0.2), stax.Erf(), stax.Dense(64, 1.3, 0.1), stax.Relu(), stax.Dense(1)
    )
    k_dd, k_td, k_tt = (kernel_fn(*a, ("nngp", "ntk")) for a in ((x, None), (z, x), (z, None)))
    out: dict = {"x": x, "z": z, "y": y, "f0": f0, "g0": g0, "times": TIMES}
    put(out, "dd", k_dd), put(out, "td", k_td), put(out, "tt", k_tt)

    for name, reg, absolute in (
        ("none", 0.0, False),
        ("relative", 1e-2, False),
        ("absolute", 0.3, True),
    ):
        fn = predict.gradient_descent_mse(k_dd.ntk, y, 0.7, reg, absolute)
        put(out, f"mse/{name}/finite", fn(TIMES, f0, g0, k_td.ntk))
        put(out, f"mse/{name}/infinite", fn(None, f0, g0, k_td.ntk))
        put(out, f"mse/{name}/test only", fn(TIMES, None, 0.0, k_td.ntk))
        put(out, f"mse/{name}/train only", fn(TIMES[1]))
        fn = predict.gradient_descent_mse_ensemble(kernel_fn, x, y, 0.7, reg, absolute)
        for where, points in (("test", z), ("train", None)):
            for when, t in (("finite", TIMES), ("infinite", None), ("scalar", 2.5)):
                put(out, f"ensemble/{name}/{where}/{when}", fn(t, points, ("ntk", "nngp"), True))
        fn = predict.gp_inference(k_dd, y, reg, absolute)
        put(out, f"gp/{name}", fn(("nngp", "ntk", "ntkgp"), k_td, k_tt))

    # Kernels with an output axis of their own: (n, n, o, o), trace_axes = ().
    mix = np.array([[1.0, 0.3], [0.3, 0.8]])
    full = [np.einsum("ij,kl->ijkl", np.asarray(k.ntk), mix) for k in (k_dd, k_td)]
    put(
        out,
        "full",
        predict.gradient_descent_mse(full[0], y, 0.7, 1e-2, False, ())(TIMES, f0, g0, full[1]),
    )
    put(
        out,
        "full infinite",
        predict.gradient_descent_mse(full[0], y, 0.7, 1e-2, False, ())(None, f0, g0, full[1]),
    )
    put(
        out,
        "full gp",
        predict.gp_inference(full[0], y, 1e-2, False, ())(
            "nngp", full[1], np.einsum("ij,kl->ijkl", np.asarray(k_tt.ntk), mix)
        ),
    )
    # Traced axis first.
    put(
        out,
        "first",
        predict.gradient_descent_mse(k_dd.ntk, y.T, 0.7, 0.0, False, (0,))(
            TIMES, f0.T, g0.T, k_td.ntk
        ),
    )

    square = lambda f, y: 0.5 * jnp.mean((f - y) ** 2)  # noqa: E731
    entropy = lambda f, y: -jnp.mean(jax.nn.log_softmax(f) * y)  # noqa: E731
    labels = np.eye(2)[[0, 1, 1, 0, 1, 0, 0]]
    out["labels"] = labels
    times = np.array([0.0, 1.5, 20.0])
    for name, loss, target in (("square", square, y), ("entropy", entropy, labels)):
        for momentum in (None, 0.9):
            fn = predict.gradient_descent(loss, k_dd.ntk, target, 0.6, momentum)
            put(out, f"descent/{name}/{momentum}", fn(times, f0, g0, k_td.ntk))
    state = predict.ODEState(f0, g0, 0.1 * f0, -0.2 * g0)
    after = predict.gradient_descent(entropy, k_dd.ntk, labels, 0.6, 0.9)(
        times, state, None, k_td.ntk
    )
    for field in ("fx_train", "fx_test", "qx_train", "qx_test"):
        put(out, f"state/{field}", getattr(after, field))
    # max_learning_rate is not here: neural-tangents' call of eigvalsh fails with SciPy >= 1.14.
    np.savez_compressed(
        Path(__file__).parent.parent / "tests" / "data" / "predict_reference.npz", **out
    )


if __name__ == "__main__":
    main()
