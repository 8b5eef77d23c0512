"""`interop.convert`: stand-ins with the names and attributes of the libraries, and the libraries where they are."""

import doctest
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kljax
from bench import interop_pairs
from kljax import expfam
from kljax.interop import convert
from kljax.lowrank import LowRank
from kljax.mixture import Mixture
from kljax.mvn import MVN
from kljax.normal import Normal
from tests import accuracy

pytestmark = pytest.mark.lenient
LOC, SCALE = jnp.array([0.5, -1.0]), jnp.array([1.0, 2.0])
TRIL = jnp.array([[1.0, 0.0], [0.5, 2.0]])


class Tensor:
    """What convert knows of a torch tensor."""

    def __init__(self, value, dtype="torch.float32", attached=True):
        self.value, self.dtype, self.attached = np.asarray(value, np.float32), dtype, attached

    def detach(self):
        return Tensor(self.value, self.dtype, False)

    def cpu(self):
        return self

    def float(self):
        return Tensor(self.value, "torch.float32", self.attached)

    def numpy(self):
        assert not self.attached and self.dtype == "torch.float32", "numpy has no gradients and no bfloat16"
        return self.value


class Operator:
    """What convert knows of a linear operator of TFP."""

    def __init__(self, dense):
        self.dense = jnp.asarray(dense)

    def to_dense(self):
        return self.dense

    def diag_part(self):
        return jnp.diagonal(self.dense, axis1=-2, axis2=-1)


def like(name, bases=(), **attributes):
    """An object of a type of that name, which may have bases of other names."""
    kinds = tuple(type(b, (), {}) for b in bases)
    made = type(name, kinds, {})()
    made.__dict__.update(attributes)
    return made


def same(got, expected):
    assert type(got) is type(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert jnp.shape(a) == jnp.shape(b) and np.allclose(a, b, rtol=1e-6, atol=0), (got, expected)


def normal(shape=(2,), loc=LOC, scale=SCALE):
    return like("Normal", loc=loc, scale=scale, batch_shape=shape, event_shape=())


P = jnp.array([0.2, 0.3, 0.5])
KNOWN = [
    (normal(), Normal(LOC, SCALE)),
    (normal(scale=3.0), Normal(LOC, jnp.full(2, 3.0))),
    (normal(loc=0.0), Normal(jnp.zeros(2), SCALE)),
    (normal(loc=Tensor(LOC), scale=Tensor(SCALE)), Normal(LOC, SCALE)),
    (normal(loc=Tensor(LOC, "torch.bfloat16"), scale=Tensor(1.0)), Normal(LOC, jnp.ones(2))),
    (like("LogStddevNormal", ("Normal",), loc=LOC, scale=SCALE), Normal(LOC, SCALE)),
    (like("Independent", base_dist=normal(scale=1.0), reinterpreted_batch_ndims=1), Normal(LOC, jnp.ones(2))),
    (like("Independent", distribution=normal(), reinterpreted_batch_ndims=0), Normal(LOC, SCALE)),
    (
        like("Independent", reinterpreted_batch_ndims=2, distribution=normal((1, 2), LOC[None], SCALE[None])),
        Normal(LOC, SCALE),
    ),
    (
        like("ExpandedDistribution", base_dist=normal((), 1.0, 2.0), batch_shape=(3,)),
        Normal(jnp.ones(3), jnp.full(3, 2.0)),
    ),
    (like("MultivariateNormalDiag", loc=LOC, scale_diag=SCALE), Normal(LOC, SCALE)),
    (like("MultivariateNormalDiag", loc=None, scale=Operator(jnp.diag(SCALE))), Normal(jnp.zeros(2), SCALE)),
    (like("MultivariateNormal", loc=LOC, scale_tril=TRIL), MVN(LOC, TRIL)),
    (like("MultivariateNormalTriL", loc=LOC, scale=Operator(TRIL)), MVN(LOC, TRIL)),
    (like("MultivariateNormalTri", loc=LOC, scale_tri=-TRIL, is_lower=True), MVN(LOC, TRIL)),
    (
        like("MultivariateNormalTri", loc=LOC, scale_tri=TRIL.T, is_lower=False),
        MVN(LOC, jnp.linalg.cholesky(TRIL.T @ TRIL)),
    ),
    (like("MultivariateNormalFullCovariance", ("MultivariateNormalTriL",), loc=LOC, scale=Operator(TRIL)),
     MVN(LOC, TRIL)),
    (
        like("MultivariateNormalDiagPlusLowRank", loc=LOC, scale=Operator(TRIL + 1.0)),
        MVN(LOC, jnp.linalg.cholesky((TRIL + 1.0) @ (TRIL + 1.0).T)),
    ),
    (
        like("MultivariateNormalDiagPlusLowRank", loc=LOC, scale_diag=SCALE, scale_u_matrix=LOC[:, None],
             scale_v_matrix=SCALE[:, None]),
        MVN(LOC, jnp.linalg.cholesky((jnp.diag(SCALE) + jnp.outer(LOC, SCALE)) @
                                     (jnp.diag(SCALE) + jnp.outer(LOC, SCALE)).T)),
    ),
    (
        like("LowRankMultivariateNormal", loc=LOC, cov_factor=TRIL[:, :1], cov_diag=SCALE),
        LowRank(LOC, TRIL[:, :1], SCALE),
    ),
    (
        like("MultivariateNormalDiagPlusLowRankCovariance", loc=None, cov_perturb_factor=TRIL, cov_diag_factor=SCALE),
        LowRank(jnp.zeros(2), TRIL, SCALE),
    ),
    (like("CategoricalProbs", probs=P, logits=None), expfam.Categorical(jnp.log(P))),
    (like("CategoricalLogits", probs=None, logits=LOC), expfam.Categorical(LOC)),
    (like("Categorical", _probs=P, _logits=None), expfam.Categorical(jnp.log(P))),
    (like("Categorical", _probs=None, _logits=LOC), expfam.Categorical(LOC)),
    (like("OneHotCategorical", probs=None, logits=LOC), expfam.Categorical(LOC)),
    (like("BernoulliProbs", probs=P), expfam.Bernoulli(jnp.log(P) - jnp.log(1 - P))),
    (like("Bernoulli", logits=LOC, probs=None), expfam.Bernoulli(LOC)),
    (like("Beta", concentration1=2.0, concentration0=SCALE), expfam.Beta(jnp.full(2, 2.0), SCALE)),
    (like("Beta", alpha=2.0, beta=3.0), expfam.Beta(2.0, 3.0)),
    (like("Gamma", concentration=2.0, rate=3.0), expfam.Gamma(2.0, 3.0)),
    (like("Gamma", concentration=2.0, rate=None, log_rate=0.0), expfam.Gamma(2.0, 1.0)),
    (like("Chi2", ("Gamma",), concentration=2.0, rate=0.5), expfam.Gamma(2.0, 0.5)),
    (like("InverseGamma", concentration=2.0, rate=0.5), expfam.InverseGamma(2.0, 0.5)),
    (like("Dirichlet", concentration=SCALE), expfam.Dirichlet(SCALE)),
    (like("Poisson", rate=None, log_rate=0.0), expfam.Poisson(1.0)),
    (like("Exponential", ("Gamma",), rate=2.0), expfam.Exponential(2.0)),
    (like("Laplace", loc=LOC, scale=1.0), expfam.Laplace(LOC, jnp.ones(2))),
    (like("GeometricLogits", logits=0.0), expfam.Geometric(0.5)),
    (Normal(LOC, SCALE), Normal(LOC, SCALE)),
    (
        like("MixtureSameFamily", mixing_distribution=like("CategoricalLogits", logits=LOC),
             component_distribution=normal()),
        Mixture(LOC, Normal(LOC[:, None], SCALE[:, None])),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("dist", "expected"), KNOWN, ids=lambda v: type(v).__name__)
def test_an_object_is_read_by_its_name_and_attributes(dist, expected):
    same(convert(dist), expected)


def test_torch_keeps_what_was_given_beside_what_it_derived():
    probs = Tensor(P)
    dist = like("Categorical", probs=probs, logits=Tensor(jnp.log(P) + 1e-3), _param=probs)
    same(convert(dist), expfam.Categorical(jnp.log(P)))


def test_a_scale_that_is_not_a_triangle_has_its_covariance():
    dist = like("MultivariateNormalLinearOperator", loc=LOC, scale=Operator(TRIL.T))
    tril = convert(dist).scale_tril
    assert np.allclose(tril @ tril.T, TRIL.T @ TRIL) and tril[0, 1] == 0


def test_what_is_not_known():
    with pytest.raises(TypeError, match="StudentT is not known; known are Bernoulli, .*Normal, .*Poisson"):
        convert(like("StudentT", df=1.0))
    with pytest.raises(TypeError, match="ndarray is not known"):
        convert(np.zeros(3))
    with pytest.raises(TypeError, match="Normal without loc"):
        convert(like("Normal", scale=1.0))
    with pytest.raises(TypeError, match="Independent of a Poisson: convert it alone and sum .* last 1 axes"):
        convert(like("Independent", base_dist=like("Poisson", rate=SCALE), reinterpreted_batch_ndims=1))


def test_under_jit():
    @jax.jit
    def kl(loc):
        return kljax.normal.kl(convert(normal(loc=loc)), convert(normal()))

    accuracy.close(kl(LOC + 1.0), [0.625])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(interop_pairs.LIBRARIES))
def test_the_libraries_themselves(name):
    """Every family that a library has, through its own objects, against the textbook formula in 60 digits."""
    pytest.importorskip({"tfp": "tensorflow_probability"}.get(name, name))
    make, _, array = interop_pairs.LIBRARIES[name]()
    for family in make:
        p, q = interop_pairs.inputs(family, near=False)
        made = [make[family](*(array(x) for x in side)) for side in (p, q)]
        got = interop_pairs.ours(*made, family != "Normal")
        true = [interop_pairs.TRUE[family](*(x[i] for x in (*p, *q))) for i in range(interop_pairs.COUNT)]
        accuracy.close(got, accuracy.exact(true), eps=accuracy.GRADIENT)


def test_documented():
    known = re.findall(r"[A-Z]\w+", kljax.interop.convert.__doc__)
    assert {"Normal", "Categorical", "Mixture", "LowRank", "TypeError"} <= set(known)
    test = doctest.DocTestParser().get_doctest(kljax.interop.convert.__doc__, {}, "convert", None, 0)
    assert test.examples and doctest.DocTestRunner().run(test).failed == 0
