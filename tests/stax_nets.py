"""Networks in neural-tangents' spelling, each with a shape of data,
which tools/stax_reference.py asks it about.
"""


def nets(stax):
    """{name: (layer, shape)} of a module that spells layers so."""
    return {
        "dense": (
            stax.serial(stax.Dense(16, 1.3, 0.2), stax.Relu(), stax.Dense(3, 0.7, 0.5)),
            (5, 4),
        ),
        "standard, widened": (
            stax.serial(
                stax.Dense(16, 1.3, 0.2, parameterization="standard", s=(1, 3)),
                stax.Erf(),
                stax.Dense(8, 1.1, 0.3, parameterization="standard", s=(3, 2)),
                stax.Relu(),
                stax.Dense(2, 0.7, None, parameterization="standard", s=(2, 1)),
            ),
            (5, 4),
        ),
        "samples last": (
            stax.serial(
                stax.Dense(16, 1.3, 0.2, batch_axis=1, channel_axis=0),
                stax.Gelu(),
                stax.Dense(9, batch_axis=1, channel_axis=0),
                stax.LayerNorm(axis=0, batch_axis=1, channel_axis=0),
                stax.Dense(3, 0.7, 0.5, batch_axis=1, channel_axis=0),
            ),
            (4, 5),
        ),
        "images": (
            stax.serial(
                stax.Conv(8, (3, 2), (2, 1), "SAME", 1.2, 0.3),
                stax.Relu(),
                stax.Conv(4, (2, 2), padding="CIRCULAR"),
                stax.Relu(),
                stax.AvgPool((2, 2), (1, 2), "SAME"),
                stax.Flatten(),
                stax.Dense(2),
            ),
            (3, 6, 7, 3),
        ),
        "channels first": (
            stax.serial(
                stax.Conv(8, (3, 2), (2, 1), "SAME", 1.2, 0.3, ("NCHW", "OIHW", "NCHW")),
                stax.LayerNorm(1, channel_axis=1),
                stax.Relu(),
                stax.SumPool((2, 2), (1, 2), "VALID", channel_axis=1),
                stax.GlobalAvgPool(channel_axis=1),
                stax.Dense(2),
            ),
            (3, 2, 6, 7),
        ),
        "letters": (
            stax.serial(
                stax.Conv(8, (3, 2), (2, 1), "SAME", 1.2, 0.3, ("CHWN", "WIHO", "NHWC")),
                stax.Relu(),
                stax.AvgPool((2, 2), (1, 2), "SAME", normalize_edges=True),
                stax.Flatten(0, 1),
                stax.Dense(2, 1.0, 0.1, batch_axis=1, channel_axis=0),
            ),
            (2, 6, 7, 3),
        ),
        "samples last, images": (
            stax.serial(
                stax.Conv(8, (3, 2), padding="SAME", dimension_numbers=("HWCN", "HWIO", "CHWN")),
                stax.Abs(),
                stax.GlobalSumPool(batch_axis=3, channel_axis=0),
                stax.Dense(3, 1.0, 0.1, batch_axis=-1, channel_axis=0),
            ),
            (6, 7, 2, 3),
        ),
        "flatten first": (
            stax.serial(stax.Flatten(), stax.Dense(5, 1.0, 0.4), stax.Sin(), stax.Dense(3)),
            (6, 7, 2, 3),
        ),
        "flatten, samples last": (
            stax.serial(
                stax.Conv(8, (3, 2), padding="SAME", dimension_numbers=("HWCN", "HWIO", "CHWN")),
                stax.Abs(),
                stax.Flatten(3),
                stax.Dense(3),
            ),
            (6, 7, 2, 3),
        ),
        "flatten last": (
            stax.serial(stax.Conv(8, (3, 2)), stax.Relu(), stax.Flatten()),
            (3, 4, 5, 2),
        ),
        "standard images": (
            stax.serial(
                stax.Conv(
                    8,
                    (3, 3),
                    padding="SAME",
                    W_std=1.2,
                    b_std=0.3,
                    parameterization="standard",
                    s=(1, 2),
                ),
                stax.Relu(),
                stax.Conv(6, (3, 3), W_std=1.1, b_std=0.2, parameterization="standard", s=(2, 3)),
                stax.Relu(),
                stax.GlobalAvgPool(),
                stax.Dense(2, 1.0, 0.1, parameterization="standard", s=(3, 1)),
            ),
            (3, 6, 5, 2),
        ),
        "standard images, flatten": (
            stax.serial(
                stax.Conv(
                    8,
                    (3, 3),
                    padding="SAME",
                    W_std=1.2,
                    b_std=0.3,
                    parameterization="standard",
                    s=(1, 2),
                ),
                stax.Relu(),
                stax.Flatten(),
                stax.Dense(2, 1.0, 0.1, parameterization="standard", s=(2, 1)),
            ),
            (3, 6, 5, 2),
        ),
        "branches": (
            stax.serial(
                stax.Dense(8),
                stax.FanOut(3),
                stax.parallel(
                    stax.Identity(),
                    stax.serial(stax.Relu(), stax.Dense(8, 1.2, 0.1)),
                    stax.serial(stax.Rbf(0.3), stax.Dense(8)),
                ),
                stax.FanInSum(),
                stax.LeakyRelu(0.2),
                stax.Dense(2),
            ),
            (5, 4),
        ),
        "nonlinearities": (
            stax.serial(
                stax.Dense(8),
                stax.ABRelu(0.2, 1.1),
                stax.Dense(8),
                stax.Cos(1.1, 0.7, 0.2),
                stax.Dense(8),
                stax.Exp(0.3, 0.5),
                stax.Dense(8),
                stax.Gaussian(1.0, -0.3),
                stax.Dense(8),
                stax.Sigmoid_like(),
                stax.Dense(3),
            ),
            (5, 4),
        ),
        "ends with an image": (
            stax.serial(
                stax.Conv(6, (3, 2), (1, 2), "SAME", 1.2, 0.3),
                stax.Relu(),
                stax.Conv(4, (2, 2), padding="CIRCULAR"),
                stax.Erf(),
            ),
            (2, 4, 5, 3),
        ),
        "ends with an image, channels first": (
            stax.serial(
                stax.Conv(6, (2, 3), dimension_numbers=("NCHW", "OIHW", "NCHW"), b_std=0.2),
                stax.Gelu(),
                stax.AvgPool((2, 2), (1, 2), "SAME", True, channel_axis=1),
                stax.Dense(3, 1.1, 0.1, channel_axis=1),
            ),
            (2, 3, 4, 5),
        ),
        "sequence": (
            stax.serial(
                stax.Conv(8, (3,), padding="SAME", b_std=0.1),
                stax.Relu(),
                stax.SumPool((2,), (2,), "CIRCULAR"),
                stax.Conv(6, (2,), dimension_numbers=("NHC", "HIO", "HNC")),
                stax.Erf(),
                stax.GlobalAvgPool(batch_axis=1),
                stax.Dense(2),
            ),
            (3, 9, 2),
        ),
        "volume": (
            stax.serial(
                stax.Conv(4, (2, 2, 2), (1, 2, 1), "SAME"),
                stax.Relu(),
                stax.Flatten(),
                stax.Dense(2),
            ),
            (2, 3, 4, 2, 3),
        ),
        "transposed": (
            stax.serial(
                stax.ConvTranspose(5, (3, 2), (2, 1), "SAME", 1.2, 0.3),
                stax.Relu(),
                stax.Flatten(),
                stax.Dense(2),
            ),
            (2, 4, 3, 3),
        ),
        "resized": (
            stax.serial(
                stax.Conv(5, (2, 2), padding="SAME"),
                stax.Relu(),
                stax.Conv(5, (2, 2), padding="SAME"),  # after one, neural-tangents swaps the axes
                stax.Relu(),
                stax.ImageResize((-1, 3, 7, -1), "linear"),
                stax.Conv(5, (2, 2)),
                stax.Relu(),
                stax.GlobalAvgPool(),
            ),
            (2, 5, 4, 3),
        ),
        "indexed": (
            stax.serial(
                stax.Conv(5, (2, 2), padding="SAME", b_std=0.1),
                stax.Relu(),
                stax.Index(stax.Slice[:, ::2, 1]),
                stax.Conv(4, (2,)),
                stax.Relu(),
                stax.GlobalAvgPool(),
                stax.Dense(2),
            ),
            (2, 5, 4, 3),
        ),
        "some samples": (
            stax.serial(
                stax.Conv(5, (2, 2), padding="SAME"),
                stax.Relu(),
                stax.Index(stax.Slice[1::2, ::-1, 0, ...]),
                stax.Flatten(),
                stax.Dense(2),
            ),
            (5, 3, 4, 3),
        ),
        "no axes": (stax.serial(stax.Conv(5, (), b_std=0.1), stax.Relu(), stax.Dense(2)), (3, 4)),
        "indexed, channels first": (
            stax.serial(
                stax.Conv(5, (2, 2), dimension_numbers=("NCHW", "OIHW", "NCHW")),
                stax.Index(stax.Slice[:, :, ..., :-1], channel_axis=1),
                stax.Relu(),
                stax.GlobalAvgPool(channel_axis=1),
            ),
            (2, 3, 5, 4),
        ),
        "dotted": (
            stax.serial(
                stax.Conv(5, (2, 2), padding="SAME", b_std=0.1),
                stax.Relu(),
                stax.DotGeneral(
                    rhs=[1.0, -0.5, 0.3, 0.1], dimension_numbers=(((2,), (0,)), ((), ()))
                ),
                stax.Flatten(),
                stax.Dense(2),
            ),
            (2, 5, 4, 3),
        ),
        "dotted on the left": (
            stax.serial(
                stax.Conv(5, (2, 2), padding="SAME", b_std=0.1),
                stax.Relu(),
                stax.DotGeneral(
                    lhs=[[1.0, -0.5, 0.3, 0.1], [0.2, 0.4, 1.0, -2.0]],
                    dimension_numbers=(((1,), (2,)), ((), ())),
                ),
                stax.Flatten(batch_axis=1),
                stax.Dense(2),
            ),
            (2, 5, 4, 3),
        ),
    }


def masked(stax):
    """The same, of which the data have pixels, channels and samples with the value 100."""
    return {
        "masked vectors": (
            stax.serial(stax.Dense(8, 1.2, 0.4), stax.Cos(), stax.Dense(3, 1.1, 0.2)),
            (5, 4),
        ),
        "masked images": (
            stax.serial(
                stax.Conv(6, (3, 3), (1, 2), "SAME", 1.2, 0.3),
                stax.Cos(),
                stax.AvgPool((2, 2), padding="SAME"),
                stax.Conv(4, (2, 2), b_std=0.2),
                stax.Erf(),
                stax.GlobalAvgPool(),
                stax.Dense(2, 1.0, 0.3),
            ),
            (4, 5, 6, 3),
        ),
        "masked and resized": (
            stax.serial(
                stax.Conv(6, (2, 3), padding="SAME", b_std=0.3),
                stax.Cos(),
                stax.Conv(6, (2, 3), padding="SAME", b_std=0.3),
                stax.ImageResize((-1, 2, 7, -1), "linear"),
                stax.Sin(),
                stax.GlobalAvgPool(),
                stax.Dense(1),
            ),
            (3, 4, 4, 2),
        ),
        "masked and dotted": (
            stax.serial(
                stax.Conv(6, (1, 1), b_std=0.3),
                stax.Cos(),
                stax.DotGeneral(
                    rhs=[1.0, 0.0, 0.0, 0.5], dimension_numbers=(((1,), (0,)), ((), ()))
                ),
                stax.Conv(5, (2,), b_std=0.1),
                stax.GlobalAvgPool(),
            ),
            (3, 4, 3, 2),
        ),
        "masked to the end": (
            stax.serial(stax.Conv(6, (2, 3), padding="CIRCULAR", b_std=0.3), stax.Cos()),
            (3, 4, 3, 2),
        ),
        "masked and flattened": (
            stax.serial(stax.Conv(6, (2, 3), b_std=0.3), stax.Cos(), stax.Flatten(), stax.Dense(1)),
            (4, 4, 5, 2),
        ),
    }


def behind(stax):
    """Two networks, and a shape of data for the first."""
    dense = stax.serial(stax.Dense(8, 1.2, 0.4), stax.Relu(), stax.Dense(6, 1.1, 0.2))
    conv = stax.serial(stax.Conv(6, (3, 2), padding="SAME", b_std=0.2), stax.Relu())
    return {
        "vectors": (dense, stax.serial(stax.Erf(), stax.Dense(3, 1.2, 0.1)), (4, 5)),
        "images": (
            conv,
            stax.serial(stax.Conv(4, (2, 2)), stax.Erf(), stax.AvgPool((2, 1)), stax.Flatten()),
            (3, 4, 5, 2),
        ),
        "an image and its end": (conv, stax.serial(stax.Conv(4, (2, 2)), stax.Cos()), (3, 3, 4, 2)),
    }
