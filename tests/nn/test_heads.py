import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture as FittedMixture

from graphclust.nn import ClusterFrequencies, GaussianMixture, StudentTAssignment, student_t_log_assignment


def normal(*shape, seed=0, scale=1.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) * scale).float()


def student_t_twin(z, centers, v):
    q = np.zeros((len(z), len(centers)))
    for i, code in enumerate(z.tolist()):
        for j, center in enumerate(centers.tolist()):
            squared = sum((a - b) ** 2 for a, b in zip(code, center, strict=True))
            q[i, j] = (1 + squared / v) ** (-(v + 1) / 2)
    return q / q.sum(axis=1, keepdims=True)


def mixture(k, d, seed=0, variances=None):
    head = GaussianMixture(k, d)
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(k, 5.0))
    variances = rng.uniform(0.2, 3.0, (k, d)) if variances is None else np.full((k, d), variances)
    head.set_parameters(*(torch.from_numpy(a) for a in (weights, rng.normal(size=(k, d)), variances)))
    return head


def log_joint_twin(head, z):
    """log pi_c + log N(z; mu_c, v_c) in float64, one number at a time."""
    weights = np.exp(head.logits.detach().double().numpy())
    weights /= weights.sum()
    centers, variances = (t.detach().double().numpy() for t in (head.centers, head.log_variances.exp()))
    variances = np.exp(head.log_variances.detach().double().numpy())
    out = np.zeros((len(z), len(weights)))
    for i, code in enumerate(z.double().numpy()):
        for c, (weight, center, variance) in enumerate(zip(weights, centers, variances, strict=True)):
            out[i, c] = math.log(weight)
            for a, mu, v in zip(code, center, variance, strict=True):
                out[i, c] -= 0.5 * (math.log(2 * math.pi * v) + (a - mu) ** 2 / v)
    return out


def responsibilities_twin(head, z):
    joint = log_joint_twin(head, z)
    return joint - logsumexp(joint, axis=1, keepdims=True)


# -- Student-t ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("v", [0.5, 1.0, 4.0])
def test_student_t_equals_its_formula(v):
    z, centers = normal(20, 3), normal(6, 3, seed=1)
    log_q = student_t_log_assignment(z, centers, v)
    np.testing.assert_allclose(log_q.exp().numpy(), student_t_twin(z, centers, v), rtol=1e-5)


def test_student_t_head_uses_its_centers_and_degrees():
    head = StudentTAssignment(6, 3, degrees_of_freedom=2.0)
    z = normal(20, 3)
    expected = student_t_twin(z, head.centers.detach(), 2.0)
    np.testing.assert_allclose(head(z).exp().detach().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(("offset", "scale"), [(1e4, 1.0), (0.0, 1e3), (1e3, 1e2)])
def test_student_t_far_from_the_origin_and_far_apart(offset, scale):
    # Codes a hair from centres that are far apart: the expanded square must not cancel.
    centers = normal(5, 4, seed=1, scale=scale) + offset
    z = centers + normal(5, 4, seed=2, scale=1e-2)
    log_q = student_t_log_assignment(z, centers)
    np.testing.assert_allclose(log_q.numpy(), np.log(student_t_twin(z, centers, 1.0)), rtol=1e-4, atol=1e-5)


def test_student_t_is_not_hurt_by_bfloat16():
    z, centers = normal(20, 3, scale=10), normal(6, 3, seed=1, scale=10)
    with torch.autocast("cpu", torch.bfloat16):
        log_q = student_t_log_assignment(z, centers)
    np.testing.assert_allclose(log_q.exp().numpy(), student_t_twin(z, centers, 1.0), rtol=1e-4)


def test_student_t_of_one_and_of_thousands_of_clusters():
    assert torch.equal(student_t_log_assignment(normal(4, 3), normal(1, 3)), torch.zeros(4, 1))
    log_q = student_t_log_assignment(normal(8, 3), normal(5000, 3, seed=1))
    assert torch.isfinite(log_q).all()
    torch.testing.assert_close(log_q.exp().sum(dim=1), torch.ones(8))


def test_student_t_gradcheck():
    z, centers = normal(5, 3).double().requires_grad_(), normal(4, 3, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z, c: student_t_log_assignment(z, c, 1.5), (z, centers))


def test_student_t_gradient_at_a_center_is_finite():
    centers = normal(4, 3)
    z = centers[:1].clone().requires_grad_()
    student_t_log_assignment(z, centers)[0, 0].backward()
    assert torch.isfinite(z.grad).all() and z.grad.abs().sum() > 0


# -- Gaussian mixture ----------------------------------------------------------------------------------------------


def test_mixture_equals_loops_and_scipy():
    head, z = mixture(4, 3), normal(25, 3, scale=2)
    joint = head.log_joint(z).detach().numpy()
    np.testing.assert_allclose(joint, log_joint_twin(head, z), rtol=1e-5, atol=1e-5)
    by_scipy = np.stack(
        [
            multivariate_normal(mu.double().numpy(), np.diag(v.double().numpy())).logpdf(z.numpy())
            for mu, v in zip(head.centers.detach(), head.log_variances.detach().exp(), strict=True)
        ],
        axis=1,
    ) + np.log(head.logits.detach().softmax(dim=0).numpy())
    np.testing.assert_allclose(joint, by_scipy, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(head(z).detach().numpy(), responsibilities_twin(head, z), rtol=1e-4, atol=1e-5)


def test_mixture_equals_scikit_learn_on_digits(digits):
    x = digits[0][:400, 20:30]
    fitted = FittedMixture(5, covariance_type="diag", reg_covar=1e-2, random_state=0).fit(x)
    head = GaussianMixture(5, 10)
    head.set_parameters(*(torch.from_numpy(a) for a in (fitted.weights_, fitted.means_, fitted.covariances_)))
    with torch.no_grad():
        np.testing.assert_allclose(head(torch.from_numpy(x.copy())).exp(), fitted.predict_proba(x), atol=1e-4)
        likelihood = head.log_joint(torch.from_numpy(x.copy())).logsumexp(dim=1)
    np.testing.assert_allclose(likelihood, fitted.score_samples(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("distance", [1e2, 1e4])
def test_mixture_of_far_away_codes_stays_in_log_space(distance):
    head, z = mixture(4, 3), normal(10, 3) + distance
    log_r = head(z).detach()
    assert torch.isfinite(log_r).all()
    assert float(log_r.min()) < -200  # far below what exp() could hold
    np.testing.assert_allclose(log_r.numpy(), responsibilities_twin(head, z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variance", [1e-4, 1e-8])
def test_mixture_of_tiny_variances(variance):
    head = mixture(4, 3, variances=variance)
    # Half way between two centres, a little nearer to one: only exact squares tell which.
    z = 0.5 * (head.centers[0] + head.centers[1]).detach()[None] + normal(10, 3, scale=math.sqrt(variance))
    log_r = head(z).detach()
    assert torch.isfinite(log_r).all()
    np.testing.assert_allclose(log_r.numpy(), responsibilities_twin(head, z), rtol=1e-4, atol=1e-2)


def test_mixture_is_not_hurt_by_bfloat16():
    head, z = mixture(4, 3), normal(20, 3, scale=10)
    with torch.autocast("cpu", torch.bfloat16):
        log_r = head(z).detach()
    np.testing.assert_allclose(log_r.numpy(), responsibilities_twin(head, z), rtol=1e-4, atol=1e-4)


def test_mixture_of_one_and_of_thousands_of_clusters():
    assert torch.equal(mixture(1, 3)(normal(4, 3)), torch.zeros(4, 1))
    log_r = mixture(5000, 3)(normal(8, 3))
    assert torch.isfinite(log_r).all()
    torch.testing.assert_close(log_r.exp().sum(dim=1), torch.ones(8))


def test_mixture_gradcheck():
    head, z = mixture(3, 2).double(), normal(5, 2).double().requires_grad_()
    parameters = tuple(p.detach().clone().requires_grad_() for p in head.parameters())
    names = [name for name, _ in head.named_parameters()]

    def responsibilities(z, *values):
        return torch.func.functional_call(head, dict(zip(names, values, strict=True)), (z,))

    assert torch.autograd.gradcheck(responsibilities, (z, *parameters))


def test_mixture_samples_follow_their_parameters():
    head = GaussianMixture(3, 2)
    weights = torch.tensor([0.2, 0.3, 0.5])
    centers = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    variances = torch.tensor([[0.1, 1.0], [0.5, 0.5], [2.0, 0.1]])
    head.set_parameters(weights, centers, variances)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        codes, clusters = head.sample(20_000, generator=generator)
        again = head.sample(5, generator=torch.Generator().manual_seed(3))[0]
        same = head.sample(5, generator=torch.Generator().manual_seed(3))[0]
        alone = head.sample(100, cluster=1, generator=generator)
    share = torch.bincount(clusters) / 20_000
    torch.testing.assert_close(share, weights, atol=0.02, rtol=0)
    for c in range(3):
        torch.testing.assert_close(codes[clusters == c].mean(dim=0), centers[c], atol=0.1, rtol=0)
        torch.testing.assert_close(codes[clusters == c].var(dim=0), variances[c], atol=0.05, rtol=0.1)
    assert torch.equal(again, same)
    assert set(alone[1].tolist()) == {1} and bool((alone[0][:, 0] > 5).all())
    with pytest.raises(ValueError, match="cluster is 3, it must lie between 0 and 2"):
        head.sample(1, cluster=3)


def test_set_parameters_survives_zeros():
    head = GaussianMixture(2, 2)
    head.set_parameters(torch.tensor([0.0, 1.0]), torch.zeros(2, 2), torch.zeros(2, 2))
    assert all(torch.isfinite(p).all() for p in head.parameters())
    assert torch.isfinite(head(normal(3, 2))).all()


@pytest.mark.parametrize("bad", [0, -2, 2.5])
def test_impossible_numbers_of_clusters(bad):
    for make in (GaussianMixture, StudentTAssignment):
        with pytest.raises(ValueError, match=f"n_clusters is {bad}"):
            make(bad, 3)
    with pytest.raises(ValueError, match=f"n_clusters is {bad}"):
        ClusterFrequencies(bad)
    with pytest.raises(ValueError, match="degrees_of_freedom is 0"):
        StudentTAssignment(2, 3, 0.0)


# -- frequencies over all samples ------------------------------------------------------------------------------------


def test_frequencies_of_a_full_batch_are_exact():
    q = normal(100, 4).softmax(dim=1)
    head = ClusterFrequencies(4)
    head.set(torch.tensor([70.0, 10.0, 10.0, 10.0]))
    torch.testing.assert_close(head.update(q, 100), q.sum(dim=0))


@pytest.mark.parametrize("start", [None, "known"])
def test_frequencies_of_mini_batches_sum_to_n_and_converge(start):
    n, b = 1000, 64
    rng = torch.Generator().manual_seed(0)
    q = (3 * torch.randn(n, 5, generator=rng) + torch.arange(5.0)).softmax(dim=1)
    truth = q.sum(dim=0)
    head = ClusterFrequencies(5)
    if start:
        head.set(torch.full((5,), n / 5))
    distances = []
    for _ in range(20):
        found = []
        for batch in torch.randperm(n, generator=rng).split(b):  # the last one is smaller
            frequencies = head.update(q[batch], n)
            assert float(frequencies.sum()) == pytest.approx(n, rel=1e-4)
            found.append(frequencies.clone())
        distances.append(float((torch.stack(found).mean(dim=0) - truth).abs().sum()) / n)
    assert distances[-1] < 0.02 < distances[0]
    batch_alone = q[:b].sum(dim=0) * n / b
    assert float((batch_alone - truth).abs().sum()) / n > 0.02  # a single batch does not know them as well


def test_frequencies_take_no_gradient_and_travel_with_the_model():
    head = ClusterFrequencies(3)
    q = normal(10, 3).requires_grad_()
    head.update(q.softmax(dim=1), 20)
    assert not head.frequencies.requires_grad
    other = ClusterFrequencies(3)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.frequencies, head.frequencies)
