"""docs/neural-tangents.md: its table names all of neural-tangents.stax and says what is true."""

import inspect
import re

import pytest

from conftest import ROOT
from ntkcore import stax

# Of neural-tangents 0.6.5.
NAMES = """
parallel serial repeat ABRelu Abs Cos Elementwise ElementwiseNumerical Erf Exp ExpNormalized Gabor
Gaussian Gelu Hermite LeakyRelu Monomial Polynomial Rbf RectifiedMonomial Relu Sigmoid_like Sign Sin
Aggregate AvgPool Conv ConvLocal ConvTranspose Dense Identity Index DotGeneral Dropout Flatten
GlobalAvgPool GlobalSelfAttention GlobalSumPool ImageResize LayerNorm SumPool Slice FanInConcat
FanInProd FanInSum FanOut AggregateImplementation AttentionMechanism Padding PositionalEmbedding
Bool Diagonal MaskedArray layer requires supports_masking unmask_fn
"""
ROW = re.compile(r"^\| `(?P<name>\w+)(?P<signature>\(.*\))?` \| (?P<here>[^|]*) \| (?P<note>.*)\|$")
TEXT = (ROOT / "docs" / "neural-tangents.md").read_text(encoding="utf-8")
ROWS = [match.groupdict() for match in map(ROW.match, TEXT.splitlines()) if match]


def test_every_name_once():
    assert sorted(row["name"] for row in ROWS) == sorted(NAMES.split())


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_row(row):
    assert row["here"] in ("same", "differs", "not there")
    assert (
        hasattr(stax, row["name"]) == (row["name"] in stax.__all__) == (row["here"] != "not there")
    )
    assert row["note"].strip() or row["here"] != "differs"
    if row["here"] != "not there" and row["signature"]:
        parameters = inspect.signature(getattr(stax, row["name"])).parameters.values()
        plain = [p.replace(annotation=p.empty) for p in parameters]
        assert str(inspect.Signature(plain)) == row["signature"]


def test_nothing_else_is_there():
    """Names of its own are few, and none hides one of neural-tangents'."""
    assert set(stax.__all__) - set(NAMES.split()) == {"Kernel", "KernelFn", "Layer", "batch"}
