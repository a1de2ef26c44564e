"""What a study is: functions by what they do and capture, wherever they come from."""

import functools
import itertools
import sys
import types
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from threadpoolctl import threadpool_info, threadpool_limits

from ntkcore import mlp
from ntkcore.falsifier import Budget, Claim, falsify, tasks
from ntkcore.falsifier.identity import identity
from ntkcore.falsifier.study import Network, Study
from ntkcore.falsifier.tasks import Arrays, sparse_parity
from test_control import SMALL, module, tiny

FACTOR = 1.0


def maker(factor):
    """A task that captures a number."""

    def task(seed, *, n=40):
        split = tiny(seed, n=n)
        return type(split)(**{**split.arrays, "x": factor * split.x})

    return task


def of_a_global(seed):
    return [FACTOR * number for number in range(seed)]


def inside(seed):
    return (lambda: FACTOR * seed)()


def test_what_a_function_captures_is_part_of_it():
    assert identity(maker(1.0)) == identity(maker(1.0)) != identity(maker(100.0))

    def many(array, default=1.0):
        def f(seed, scale=default, *, shift=default):
            return scale * array + shift

        return f

    a, b = np.zeros(3), np.ones(3)
    assert identity(many(a)) == identity(many(np.zeros(3)))
    second = many(a)
    second.__defaults__ = (2.0,)
    found = [many(a), many(b), many(a, 2.0), functools.partial(many(a), 1), many(torch.ones(3))]
    found += [second]
    assert all(identity(f) != identity(g) for f, g in itertools.combinations(found, 2))


@pytest.mark.parametrize("function", [of_a_global, inside])
def test_globals_that_a_function_uses_are_part_of_it(function, monkeypatch):
    before = identity(function)
    monkeypatch.setattr(sys.modules[__name__], "UNUSED", 1, raising=False)
    assert identity(function) == before
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 2.0)
    assert identity(function) != before


SOURCE = """
import helper_of_a_test as helper
def scale(): return 3
def task(seed): return scale() * helper.shift(seed)
class Net(Base):
    width = {width}
    def forward(self, x): return x
net = Net
"""


def test_the_same_function_from_elsewhere_is_the_same(monkeypatch):
    def load(name, width=4):
        found = types.ModuleType(name)
        found.Base = torch.nn.Module
        monkeypatch.setitem(sys.modules, name, found)
        exec(SOURCE.format(width=width), vars(found))
        return found

    helper = types.ModuleType("helper_of_a_test")
    monkeypatch.setitem(sys.modules, "helper_of_a_test", helper)
    exec("def shift(seed): return seed + 1", vars(helper))
    here, there, other = load("here"), load("there"), load("other", width=5)
    assert identity(here.task) == identity(there.task)
    assert identity(here.net) == identity(there.net) != identity(other.net)
    exec("def shift(seed): return seed + 2", vars(helper))
    before, after = identity(here.task), identity(load("anew").task)
    assert before == after
    exec("def shift(seed): return seed + 1", vars(helper))
    assert identity(here.task) != before


MODULE = None


def of_a_module(module):
    """Functions that reach a module in other ways than by a global's attribute."""

    def closure(seed):
        return module.shift(seed)

    def alias(seed):
        found = MODULE
        return found.shift(seed)

    def by_name(seed):
        return getattr(MODULE, "shift")(seed)  # noqa: B009

    def imported(seed):
        import helper_of_a_test

        return helper_of_a_test.shift(seed)

    def taken(seed):
        from helper_of_a_test import shift

        return shift(seed)

    return [closure, alias, by_name, imported, taken, functools.partial(closure, module)]


def test_modules_count_with_what_they_hold(monkeypatch):
    """But for those that come with a package, which count by its version."""
    found = []
    for number in (1, 1, 2):
        helper = types.ModuleType("helper_of_a_test")
        helper.NUMBER = number
        exec("def shift(seed): return seed + NUMBER", vars(helper))
        monkeypatch.setitem(sys.modules, "helper_of_a_test", helper)
        monkeypatch.setattr(sys.modules[__name__], "MODULE", helper)
        found.append([identity(function) for function in of_a_module(helper)])
    assert found[0] == found[1]
    assert not set(found[0]) & set(found[2])
    assert identity(of_a_module(np)[0]) == identity(of_a_module(np)[0])


class Wrapped:
    """A decorator's object with a number of its own."""

    def __init__(self, function, factor):
        functools.update_wrapper(self, function)
        self.factor = factor

    def __call__(self, seed):
        return self.factor * self.__wrapped__(seed)


def doubled(self, seed):
    return 2 * seed


def tripled(self, seed):
    return 3 * seed


tripled.__name__ = "doubled"


def test_what_looks_alike_is_told_apart():
    """Objects around functions; how functions are called; arrays with more than their numbers."""
    pairs = [
        (Wrapped(tiny, 1), Wrapped(tiny, 2)),
        (types.MethodType(doubled, [1]), types.MethodType(tripled, [1])),
        (lambda s, n: (s, n), lambda s, *n: (s, n)),
        (lambda s, n: (s, n), lambda s, *, n: (s, n)),
        tuple(np.ma.array([1, 2, 3], mask=mask) for mask in ([0, 0, 1], [0, 1, 0])),
        tuple(np.zeros(2, [(name, float)]) for name in "ab"),
        tuple(make(2, dtype=torch.bfloat16) for make in (torch.zeros, torch.ones)),
        tuple(torch.eye(2).to_sparse() * factor for factor in (1, 2)),
    ]
    for one, other in pairs:
        assert identity(one) == identity(one) != identity(other)


def test_objects_count_with_their_state():
    class Mine:
        factor = 1.0

    mine = Mine()
    assert identity(mine) == identity(mine)  # copyreg writes into the class in between
    x = np.arange(20.0)[:, None]
    assert identity(Arrays(x, x[:, 0])) == identity(Arrays(x, x[:, 0]))
    assert identity(Arrays(x, x[:, 0])) != identity(Arrays(2 * x, x[:, 0]))
    assert identity(Arrays(x, x[:, 0]).__call__) != identity(Arrays(2 * x, x[:, 0]).__call__)
    draw = [np.random.default_rng(seed).standard_normal for seed in (0, 0, 1)]
    assert identity(draw[0]) == identity(draw[1]) != identity(draw[2])
    assert identity(module(0)) == identity(module(0)) != identity(module(1))


def test_recursion_ends():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    ring = [1]
    ring.append(ring)
    assert identity(even) == identity(even) != identity(odd)
    assert identity(ring) == identity(ring)


def test_a_folder_is_of_one_captured_number(tmp_path):
    options = {"training": SMALL, "budget": Budget(1, (), seconds=0), "folder": tmp_path}
    falsify(maker(1.0), module, Claim("c"), **options)
    falsify(maker(1.0), module, Claim("c"), **options)
    with pytest.raises(ValueError, match="another study"):
        falsify(maker(100.0), module, Claim("c"), **options)


def parts_of(**options):
    """A study's fingerprint."""
    given = {"task": tiny, "spec": None, "module": module, "claim": Claim("c"), "training": SMALL}
    given |= options
    network = Network(given["spec"], given["module"], 8, "cpu")
    return Study(given["task"], network, (given["claim"],), given["training"]).fingerprint()


def test_a_fingerprint_is_of_all_that_a_cell_depends_on():
    """But for the least effect, the name and the predicate, which judge what cells hold."""

    def of_other_forward(seed):
        made = module(seed)
        return torch.nn.Sequential(*made[:1], torch.nn.Tanh(), *made[2:])

    def floor(split):
        return 0.5

    def other(seed, *, n=40):
        return tiny(seed, n=n, d=7)

    same = {"claim": Claim("d", "nmse", "orders", 0.1)}
    assert parts_of() == parts_of(**same)
    others = [
        {"task": other},
        {"spec": mlp(1)},
        {"module": of_other_forward},
        {"claim": Claim("c", "error")},
        {"claim": Claim("c", floor=floor)},
        {"claim": Claim("c", axis="n", values=(10, 20))},
        {"training": replace(SMALL, steps=31)},
    ]
    found = [parts_of(), *(parts_of(**each) for each in others)]
    assert len(set(found)) == len(found)


def test_a_fingerprint_is_of_the_data(tmp_path):
    """Which change while the code that loads them stays."""
    np.save(tmp_path / "x.npy", tiny(0).x)

    def task(seed):
        return replace(tiny(seed), x=np.load(tmp_path / "x.npy"))

    before = parts_of(task=task)
    np.save(tmp_path / "x.npy", 2 * tiny(0).x)
    assert parts_of(task=task) != before


def test_data_are_the_same_whatever_the_threads(monkeypatch):
    """Sums of BLAS depend on its threads, and a study's data are its fingerprint."""
    pytest.importorskip("sklearn")
    seen = []

    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    def task(seed):
        seen.append(threads())
        return tiny(seed)

    def eigh(matrix):
        seen.append(threads())
        return np.linalg._original(matrix)

    with threadpool_limits(2, user_api="blas"):
        of = Study(task, Network(None, module, 8, "cpu"), (Claim("c"),), SMALL)
        of.fingerprint()
        monkeypatch.setattr(np.linalg, "_original", np.linalg.eigh, raising=False)
        monkeypatch.setattr(np.linalg, "eigh", eigh)
        tasks._components.__wrapped__(3)
    assert len(seen) == 2
    assert seen[0] == seen[1] == {1}


def test_a_task_without_seed_is_refused():
    """Its arms would see other data each, and their differences would not be paired."""
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="follow from the seed alone"):
        falsify(lambda seed: tiny(int(rng.integers(9**9))), module, Claim("c"), training=SMALL)


def test_a_folder_is_of_one_start(tmp_path):
    """Weights that come from a file change while the code stays."""

    def net(seed):
        made = module(seed)
        with torch.no_grad():
            made[0].weight.mul_(float((tmp_path / "weights").read_text()))
        return made

    options = {"training": SMALL, "budget": Budget(1, (), seconds=0)}
    for text in ("1", "2"):
        (tmp_path / "weights").write_text(text)
        if text == "1":
            falsify(tiny, net, Claim("c"), folder=tmp_path / "study", **options)
        else:
            with pytest.raises(ValueError, match="another study"):
                falsify(tiny, net, Claim("c"), folder=tmp_path / "study", **options)
    with pytest.raises(ValueError, match="follow from the seed"):
        falsify(tiny, lambda seed: torch.nn.Linear(6, 1), Claim("c"), **options)


def test_a_packages_task_is_seen_into(monkeypatch):
    before = identity(sparse_parity)
    monkeypatch.setattr(sparse_parity, "__kwdefaults__", {**sparse_parity.__kwdefaults__, "k": 4})
    assert identity(sparse_parity) != before
