import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from graphclust.nn import (
    GaussianMixture,
    kl_divergence,
    kl_standard_normal,
    mixture_kl,
    student_t_log_assignment,
    target_distribution,
)


def normal(*shape, seed=0, scale=1.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) * scale).double()


def assignments(n, k, seed=0):
    return normal(n, k, seed=seed, scale=2.0).softmax(dim=1)


def target_twin(q, frequencies):
    p = [[value**2 / f for value, f in zip(row, frequencies, strict=True)] for row in q.tolist()]
    return torch.tensor([[value / sum(row) for value in row] for row in p], dtype=torch.float64)


def test_target_equals_its_formula():
    q = assignments(30, 5)
    frequencies = [sum(row[j] for row in q.tolist()) for j in range(5)]
    torch.testing.assert_close(target_distribution(q), target_twin(q, frequencies))
    torch.testing.assert_close(target_distribution(q).sum(dim=1), torch.ones(30, dtype=torch.float64))


def test_target_of_a_mini_batch_needs_the_global_frequencies():
    q = assignments(300, 5)
    q = q[q.argmax(dim=1).argsort()]  # the first samples are all of one cluster
    whole = target_distribution(q)
    batch = q[:32]
    with_global = target_distribution(batch, q.sum(dim=0))
    torch.testing.assert_close(with_global, whole[:32])
    torch.testing.assert_close(with_global, target_twin(batch, q.sum(dim=0).tolist()))
    assert (
        float((target_distribution(batch) - whole[:32]).abs().max()) > 0.1
    )  # the batch's own sums: the trap


def test_target_is_a_constant_and_stays_finite():
    logits = normal(8, 4000).float().requires_grad_()
    p = target_distribution(logits.softmax(dim=1))
    assert not p.requires_grad
    assert torch.isfinite(p).all()
    # In float32, q near the square root of the smallest number: q^2 alone would be zero for the whole row.
    tiny = torch.full((4, 3), 1e-30)
    torch.testing.assert_close(target_distribution(tiny, torch.ones(3)), torch.full((4, 3), 1 / 3))
    empty = target_distribution(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert torch.equal(empty, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


def test_kl_equals_loops_and_scipy():
    p, q = assignments(12, 4), assignments(12, 4, seed=1)
    p[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    total = 0.0
    for p_row, q_row in zip(p.tolist(), q.tolist(), strict=True):
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p_row, q_row, strict=True) if a > 0)
    found = float(kl_divergence(p, q.log()))
    assert found == pytest.approx(total / 12)
    assert found == pytest.approx(float(np.mean(entropy(p.numpy(), q.numpy(), axis=1))))
    assert float(kl_divergence(q, q.log())) == pytest.approx(0.0, abs=1e-12)


def test_kl_of_hopeless_logits_is_finite_and_has_a_gradient():
    logits = torch.tensor([[300.0, -300.0]], requires_grad=True)
    loss = kl_divergence(torch.tensor([[0.0, 1.0]]), logits.log_softmax(dim=1))
    loss.backward()
    assert loss.item() == pytest.approx(600.0)
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0, -1.0]]))


def test_kl_to_the_standard_normal_equals_torch_s():
    mean, log_variance = normal(9, 4), normal(9, 4, seed=1)
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl_standard_normal(mean, log_variance), theirs.sum(dim=1))
    twin = [
        0.5 * sum(m * m + math.exp(s) - 1 - s for m, s in zip(ms, ss, strict=True))
        for ms, ss in zip(mean.tolist(), log_variance.tolist(), strict=True)
    ]
    torch.testing.assert_close(kl_standard_normal(mean, log_variance), torch.tensor(twin).double())


def mixture_twin(mean, log_variance, gamma, weights, centers, variances):
    """The specification's loss but for the reconstruction, sample by sample, cluster by cluster, number by number."""
    out = []
    for i in range(len(mean)):
        loss = -0.5 * sum(1 + s for s in log_variance[i].tolist())
        for c in range(len(weights)):
            g = float(gamma[i, c])
            inner = 0.0
            for j in range(mean.shape[1]):
                v = float(variances[c, j])
                inner += math.log(v) + math.exp(float(log_variance[i, j])) / v
                inner += float(mean[i, j] - centers[c, j]) ** 2 / v
            loss += 0.5 * g * inner
            if g > 0:
                loss -= g * math.log(float(weights[c]) / g)
        out.append(loss)
    return torch.tensor(out, dtype=torch.float64)


def problem(k=4, d=3, n=7, offset=0.0, dtype=torch.float64):
    mean, log_variance = normal(n, d) + offset, normal(n, d, seed=1)
    log_gamma = normal(n, k, seed=2).log_softmax(dim=1)
    log_weights = normal(k, seed=3).log_softmax(dim=0)
    centers, log_v = normal(k, d, seed=4) + offset, normal(k, d, seed=5)
    return tuple(t.to(dtype) for t in (mean, log_variance, log_gamma, log_weights, centers, log_v))


@pytest.mark.parametrize(
    ("offset", "dtype"), [(0.0, torch.float64), (0.0, torch.float32), (1e3, torch.float32)]
)
def test_mixture_kl_equals_the_specification(offset, dtype):
    arguments = problem(offset=offset, dtype=dtype)
    mean, log_variance, log_gamma, log_weights, centers, log_v = (a.double() for a in arguments)
    twin = mixture_twin(mean, log_variance, log_gamma.exp(), log_weights.exp(), centers, log_v.exp())
    found = mixture_kl(*arguments)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), twin, rtol=1e-5, atol=1e-5)


def test_mixture_kl_is_not_hurt_by_bfloat16():
    arguments = problem(offset=30.0, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = mixture_kl(*arguments)
    torch.testing.assert_close(found, mixture_kl(*arguments))


def test_mixture_kl_of_one_standard_normal_is_the_vae_s():
    mean, log_variance = normal(9, 4), normal(9, 4, seed=1)
    zeros = torch.zeros(9, 1).double(), torch.zeros(1).double()
    centers = torch.zeros(1, 4).double()
    found = mixture_kl(mean, log_variance, *zeros, centers, centers)
    torch.testing.assert_close(found, kl_standard_normal(mean, log_variance))


def test_mixture_kl_of_one_gaussian_is_torch_s():
    mean, log_variance, center, log_v = (normal(5, 3, seed=s) for s in range(4))
    zeros = torch.zeros(5, 1).double(), torch.zeros(1).double()
    prior = torch.distributions.Normal(center[0], (0.5 * log_v[0]).exp())
    code = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    theirs = torch.distributions.kl_divergence(code, prior).sum(dim=1)
    found = mixture_kl(mean, log_variance, *zeros, center[:1], log_v[:1])
    torch.testing.assert_close(found, theirs)


def test_certain_responsibilities_have_finite_gradients():
    mean, log_variance, _, log_weights, centers, log_v = problem()
    logits = torch.zeros(7, 4, dtype=torch.float64)
    logits[:, 1] = 1e5  # the others' probability underflows to 0
    logits.requires_grad_()
    loss = mixture_kl(mean, log_variance, logits.log_softmax(dim=1), log_weights, centers, log_v)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(logits.grad).all()


def test_gradchecks():
    arguments = [a.requires_grad_() for a in problem(n=3)]
    assert torch.autograd.gradcheck(mixture_kl, arguments)
    assert torch.autograd.gradcheck(kl_standard_normal, arguments[:2])
    p = assignments(4, 3)
    logits = normal(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda o: kl_divergence(p, o.log_softmax(dim=1)), (logits,))


def test_gradcheck_through_the_whole_prior():
    """Codes -> responsibilities -> divergence, as a method chains them, with the mixture's parameters."""
    head = GaussianMixture(3, 2).double()
    names = [name for name, _ in head.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in head.parameters()]
    mean, log_variance = normal(4, 2).requires_grad_(), normal(4, 2, seed=1).requires_grad_()
    noise = normal(4, 2, seed=2)

    def prior(mean, log_variance, *values):
        z = mean + (0.5 * log_variance).exp() * noise
        parameters = dict(zip(names, values, strict=True))
        log_gamma = torch.func.functional_call(head, parameters, (z,))
        logits, centers, log_v = (parameters[n] for n in ("logits", "centers", "log_variances"))
        return mixture_kl(mean, log_variance, log_gamma, logits.log_softmax(dim=0), centers, log_v)

    assert torch.autograd.gradcheck(prior, (mean, log_variance, *values))


def test_self_training_sharpens():
    """A few steps towards the target make the assignments of the codes more certain."""
    z, centers = normal(60, 2, scale=2.0).requires_grad_(), normal(3, 2, seed=1)
    optimizer = torch.optim.SGD([z], 20.0)
    certainty = []
    for _ in range(20):
        log_q = student_t_log_assignment(z, centers)
        certainty.append(float(log_q.detach().exp().amax(dim=1).mean()))
        optimizer.zero_grad()
        kl_divergence(target_distribution(log_q.exp()), log_q).backward()
        optimizer.step()
    assert certainty[-1] > certainty[0] + 0.01
