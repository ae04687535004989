"""Dense networks: the reverse pass against automatic differentiation and differences, and runs that never mix."""

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

from bilevelrl.estimators.critics.networks import ACTIVATIONS, SCHEMES, DenseNetwork
from bilevelrl.reference.errors import InvalidInputError, NotConvergedError, ShapeError, UnknownNameError


def network_of(activation="relu", sizes=(3, 8, 5, 2), **options):
    return DenseNetwork(sizes=sizes, activation=activation, **options)


def draw(network, runs=3, samples=4, seed=0):
    rng = np.random.default_rng(seed)
    weights = np.stack([network.initialise(rng) for _ in range(runs)])
    weights += 0.3 * rng.standard_normal(weights.shape)  # biases that are not zero
    return weights, rng.standard_normal((runs, samples, network.sizes[0]))


def plain_outputs(network, weights, inputs):
    """The same map of one run, written in autograd."""
    begin, hidden = 0, inputs
    for layer, (before, after) in enumerate(zip(network.sizes, network.sizes[1:], strict=False)):
        matrix = weights[begin : begin + before * after].reshape((before, after))
        begin += before * after
        hidden = anp.dot(hidden, matrix) + weights[begin : begin + after]
        begin += after
        if layer < len(network.sizes) - 2:
            hidden = anp.maximum(hidden, 0.0) if network.activation == "relu" else anp.tanh(hidden)
    return hidden


class TestPasses:
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("sizes", [(3, 2), (3, 8, 2), (3, 8, 5, 2)])
    def test_both_passes_agree_with_autograd(self, activation, sizes):
        network = network_of(activation, sizes)
        weights, inputs = draw(network)
        cotangent = np.random.default_rng(1).standard_normal((3, 4, 2))
        outputs, tape = network.forward(weights, inputs)
        by_weights, by_inputs = network.backward(tape, cotangent), network.input_gradient(tape, cotangent)
        for run in range(3):
            assert outputs[run] == pytest.approx(plain_outputs(network, weights[run], inputs[run]), rel=1e-13)

            def scalar(w, x, run=run):
                return anp.sum(cotangent[run] * plain_outputs(network, w, x))

            found = autograd.grad(scalar, 0)(weights[run], inputs[run])
            assert by_weights[run] == pytest.approx(found, rel=1e-12, abs=1e-13)
            assert by_inputs[run] == pytest.approx(autograd.grad(scalar, 1)(weights[run], inputs[run]), abs=1e-13)

    def test_central_differences(self):
        network = network_of("tanh")
        weights, inputs = draw(network, runs=1)
        cotangent = np.random.default_rng(1).standard_normal((1, 4, 2))
        gradient = network.backward(network.forward(weights, inputs)[1], cotangent)[0]
        h = 1e-5
        for place in range(0, network.parameters, 7):
            ends = []
            for sign in (1.0, -1.0):
                moved = weights.copy()
                moved[0, place] += sign * h
                ends.append(float((cotangent * network.forward(moved, inputs)[0]).sum()))
            assert gradient[place] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-8)

    def test_shared_inputs_are_the_same_as_repeated_ones(self):
        network = network_of()
        weights, inputs = draw(network)
        cotangent = np.ones((3, 4, 2))
        shared, tape = network.forward(weights, inputs[0])
        repeated, other = network.forward(weights, np.broadcast_to(inputs[0], inputs.shape).copy())
        assert np.array_equal(shared, repeated)
        assert np.array_equal(network.backward(tape, cotangent), network.backward(other, cotangent))

    def test_a_run_does_not_depend_on_those_beside_it(self):
        network = network_of(sizes=(6, 64, 64, 2))
        weights, inputs = draw(network, runs=5, samples=17)
        cotangent = np.random.default_rng(2).standard_normal((5, 17, 2))
        outputs, tape = network.forward(weights, inputs)
        gradient = network.backward(tape, cotangent)
        for run in range(5):
            alone, own = network.forward(weights[run : run + 1], inputs[run : run + 1])
            assert np.array_equal(alone[0], outputs[run])
            assert np.array_equal(network.backward(own, cotangent[run : run + 1])[0], gradient[run])

    def test_single_precision_stays_single(self):
        network = network_of(dtype=np.float32)
        weights, inputs = draw(network)
        outputs, tape = network.forward(weights.astype(np.float32), inputs)
        assert outputs.dtype == np.float32
        assert network.backward(tape, np.ones((3, 4, 2))).dtype == np.float32


class TestInitialise:
    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_scale(self, scheme):
        network = DenseNetwork(sizes=(40, 64, 10))
        weights = network.initialise(np.random.default_rng(0), scheme, output_gain=0.01)[None]
        (first, bias), (last, _) = network.layers(weights)
        assert not bias.any()
        if scheme == "orthogonal":
            assert first[0] @ first[0].T == pytest.approx(2.0 * np.eye(40), abs=1e-12)
            assert last[0].T @ last[0] == pytest.approx(1e-4 * np.eye(10), abs=1e-15)
            return
        bound = np.sqrt(6.0 / 104.0)
        # The sample variance of n = 2560 draws has a relative deviation below sqrt(2/n): five of them.
        assert first.var() == pytest.approx(2.0 / 104.0, rel=5 * np.sqrt(2.0 / first.size))
        assert last.var() == pytest.approx(1e-4 * 2.0 / 74.0, rel=5 * np.sqrt(2.0 / last.size))
        assert (np.abs(first).max() <= bound) == (scheme == "xavier_uniform")


class TestRefusals:
    @pytest.mark.parametrize("options", [{"sizes": (3,)}, {"sizes": (3, 0)}, {"sizes": (3, 2.5)}, {"dtype": np.int64}])
    def test_numbers(self, options):
        with pytest.raises(InvalidInputError):
            network_of(**options)

    def test_names(self):
        with pytest.raises(UnknownNameError, match="sigmoid"):
            network_of("sigmoid")
        with pytest.raises(UnknownNameError, match="zeros"):
            network_of().initialise(np.random.default_rng(0), "zeros")

    def test_shapes_and_overflow(self):
        network = network_of()
        weights, inputs = draw(network)
        with pytest.raises(ShapeError, match="weights"):
            network.forward(weights[0], inputs)
        with pytest.raises(ShapeError, match="inputs"):
            network.forward(weights, inputs[:2])
        with pytest.raises(ShapeError, match="cotangent"):
            network.backward(network.forward(weights, inputs)[1], np.ones((3, 4, 3)))
        with pytest.raises(NotConvergedError), np.errstate(over="ignore", invalid="ignore"):
            network.forward(1e200 * weights, inputs)
