"""Functions of JAX and PyTorch: their derivatives are used on every kind, what does not move stays, the rest is named.

That every route is right with them on four kinds stands in `tests/reference/derivatives/test_thirty_ways.py`.
"""

import importlib.util
from types import SimpleNamespace

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.reference import ConfigurableMDP, Tables, hypergradient
from bilevelrl.reference.errors import DerivativeError, MissingExtraError, ShapeError
from bilevelrl.tasks import four_rooms, from_jax, from_torch

pytestmark = pytest.mark.exact

MADE_BY = {"jax": from_jax, "torch": from_torch}
INSTALLED = [name for name in MADE_BY if importlib.util.find_spec(name)]
THETA = np.array([0.3, -0.7])
TOLL = np.array([[0.0, 1.0], [1.0, 0.0]])
PLAIN = SimpleNamespace(exp=anp.exp, asarray=lambda x: x, __name__="autograd.numpy")
SETTINGS = {"discount_leader": 0.9, "discount_follower": 0.8, "temperature": 0.5, "theta_shape": (2,)}


@pytest.fixture(params=MADE_BY)
def library(request):
    """The library's array module, or a skip."""
    return pytest.importorskip("jax.numpy" if request.param == "jax" else "torch")


def made(library, function, **options):
    return MADE_BY["torch" if library.__name__ == "torch" else "jax"](function, **options)


def constant(library, value):
    return library.tensor(value) if library.__name__ == "torch" else library.asarray(value)


def test_what_does_not_move_stays_a_constant(library):
    """Of four entries one depends on θ: an array of the library, one of NumPy and a number do not."""
    function = made(
        library,
        lambda theta: {
            "moves": library.exp(theta), "stays": constant(library, TOLL) * 2.0, "given": TOLL, "number": 1.5,
        },
    )  # fmt: skip
    seen = {}

    def watched(theta):
        seen.update({name: type(value).__name__ for name, value in function(theta).items()})
        return function(theta)["moves"]

    np.testing.assert_array_equal(autograd.jacobian(watched)(THETA), np.diag(np.exp(THETA)))
    assert {name for name, kind in seen.items() if kind == "ArrayBox"} == {"moves"}
    plain = function(THETA)
    np.testing.assert_array_equal(plain["stays"], 2.0 * TOLL)
    assert all(value.dtype == np.float64 for value in plain.values())


def tables_of(library):
    def tables(theta):
        push = 1.0 / (1.0 + library.exp(-theta[0]))
        toll = theta[1] * constant(library, TOLL)
        return {
            "transition": push * constant(library, np.full((2, 2, 2), 0.3)) + 0.1,
            "reward_follower": constant(library, np.array([[0.0, 1.0], [0.5, 0.0]])) - toll,
            "reward_leader": toll,
            "initial": np.array([1.0, 0.0]),
        }

    return tables


def test_an_mdp_is_the_one_written_with_autograd(library):
    ours = ConfigurableMDP(tables=lambda theta: Tables(**tables_of(PLAIN)(theta)), **SETTINGS)
    theirs = ConfigurableMDP(tables=made(library, tables_of(library), into=Tables), **SETTINGS)
    assert theirs.varying(THETA) == ours.varying(THETA)
    np.testing.assert_allclose(
        hypergradient(theirs, THETA).value, hypergradient(ours, THETA).value, rtol=0.0, atol=1e-14
    )


@pytest.mark.parametrize("mask", [np.array([[True, True], [False, True]]), np.array([[0.0, 0.0], [-np.inf, 0.0]])])
@pytest.mark.parametrize("own", [True, False])
def test_masks_and_counts_come_along(library, mask, own):
    """Booleans and integers have no derivatives; they stay what they are, the library's as well as NumPy's."""

    def function(theta):
        given = constant(library, mask) if own else mask
        return {**tables_of(library)(theta), "action_mask": given, "regulariser": constant(library, np.array(2))}

    problem = ConfigurableMDP(tables=made(library, function, into=Tables), **SETTINGS)
    plain = ConfigurableMDP(
        tables=lambda theta: Tables(**{**tables_of(PLAIN)(theta), "action_mask": mask, "regulariser": 2.0}), **SETTINGS
    )
    found, exact = hypergradient(problem, THETA), hypergradient(plain, THETA)
    np.testing.assert_allclose(found.value, exact.value, rtol=1e-12)
    assert found.objective == pytest.approx(exact.objective, rel=1e-12)
    assert found.follower.policy[1, 0] == 0.0


def test_derivatives_are_the_library_s_own(library):
    """A rule that the function brings is used, not its body's: and a wrong one is refused like any other."""
    if library.__name__ == "torch":

        class Planted(library.autograd.Function):
            @staticmethod
            def forward(ctx, theta):
                return theta**2

            @staticmethod
            def backward(ctx, cotangent):
                return cotangent * 3.0

        planted = Planted.apply
    else:
        import jax

        @jax.custom_vjp
        def planted(theta):
            return theta**2

        planted.defvjp(lambda theta: (theta**2, None), lambda _, cotangent: (cotangent * 3.0,))

    def tables(theta):
        return tables_of(library)(theta) | {"reward_leader": planted(theta) + constant(library, TOLL)}

    pull = autograd.make_vjp(made(library, planted))(THETA)[0]
    np.testing.assert_array_equal(pull(np.ones(2)), [3.0, 3.0])
    problem = ConfigurableMDP(tables=made(library, tables, into=Tables), **SETTINGS)
    with pytest.raises(DerivativeError, match="reward_leader"):
        hypergradient(problem, THETA)


def test_what_the_function_closes_over_may_change(library):
    """The same θ, another weight: value and derivative are those of the new weight."""
    weight = [1.0]
    function = made(library, lambda theta: weight[0] * theta**2)
    for w in (1.0, 5.0):
        weight[0] = w
        pull, value = autograd.make_vjp(function)(THETA)
        np.testing.assert_allclose(value, w * THETA**2, rtol=1e-15)
        np.testing.assert_allclose(pull(np.ones(2)), 2.0 * w * THETA, rtol=1e-15)


def test_forward_and_reverse_agree_for_many_entries(library):
    function = made(library, lambda theta: (library.sin(theta), library.outer(theta, theta)))
    for number, shape in enumerate([(2,), (2, 2)]):
        forward = np.stack(
            [autograd.make_jvp(lambda x, n=number: function(x)[n])(THETA)(unit)[1] for unit in np.eye(2)], axis=-1
        )
        reverse = autograd.jacobian(lambda x, n=number: function(x)[n])(THETA)
        assert reverse.shape == (*shape, 2)
        np.testing.assert_allclose(forward, reverse, rtol=0.0, atol=1e-15)


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_lower_precision_is_refused_by_name(library, precision):
    if library.__name__ == "torch" and precision == "bfloat16":
        pytest.skip("NumPy has no bfloat16, and PyTorch says so")
    single = getattr(library, precision)

    def cast(theta):
        table = theta.to(single) if library.__name__ == "torch" else theta.astype(single)
        return {"reward_leader": table}

    function = made(library, cast)
    for call in (function, lambda theta: autograd.make_vjp(lambda x: function(x)["reward_leader"])(theta)):
        with pytest.raises(ShapeError, match=f"reward_leader.dtype='{precision}': expected float64; compute it in"):
            call(THETA)


def test_second_derivatives_are_refused(library):
    function = made(library, lambda theta: theta**3)
    with pytest.raises(DerivativeError, match="second derivative"):
        autograd.hessian(lambda x: anp.sum(function(x)))(THETA)


def test_only_a_mapping_goes_into_a_record(library):
    with pytest.raises(ShapeError, match="a mapping of arrays; return a dict"):
        made(library, lambda theta: theta, into=Tables)(THETA)


@pytest.mark.skipif("torch" not in INSTALLED, reason="needs PyTorch")
def test_tensors_elsewhere_are_refused():
    import torch

    with pytest.raises(ShapeError, match=r"function\(theta\).device='meta': expected cpu"):
        from_torch(lambda theta: torch.zeros(2, device="meta"))(THETA)


@pytest.mark.skipif("torch" not in INSTALLED, reason="needs PyTorch")
@pytest.mark.parametrize("options", [{"requires_grad": True}, {"device": "meta"}, {"dtype": "bfloat16"}])
def test_a_theta_that_does_not_convert_says_why(options):
    import torch

    options = {name: getattr(torch, value) if name == "dtype" else value for name, value in options.items()}
    theta = torch.tensor(np.zeros(105)).to(**options) if "requires_grad" not in options else torch.zeros(105, **options)
    with pytest.raises(ShapeError, match=r"theta='Tensor': expected an array of float64; it does not convert \("):
        hypergradient(four_rooms(), theta)


@pytest.mark.parametrize("name", MADE_BY)
def test_a_missing_library_is_named(name, monkeypatch):
    def absent(module):
        raise ImportError(module)

    monkeypatch.setattr("bilevelrl.tasks.importing.other_arrays.importlib.import_module", absent)
    with pytest.raises(MissingExtraError, match=rf"bilevelrl\[{name}\]"):
        MADE_BY[name](lambda theta: theta)
