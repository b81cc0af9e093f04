"""Rotations: values against scipy, and derivatives against finite differences, at 0 and pi too."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from reversal.spaces import rotations

ANGLES = [0.0, 1e-12, 1e-8, 1e-4, 0.19, 0.2, 0.49, 0.51, 1.0, 2.5, math.pi - 1e-3]
SEAM = [math.pi - 1e-8, math.pi]
AXES = [[0.0, 0.0, 1.0], [0.6, -0.8, 0.0], [1.0, 2.0, -3.0], [-1.0, -1.0, -1.0]]


def vectors(angles):
    axes = torch.nn.functional.normalize(torch.tensor(AXES, dtype=torch.float64), dim=-1)
    return torch.tensor(angles, dtype=torch.float64)[:, None, None] * axes


def double(values):
    return torch.as_tensor(values, dtype=torch.float64)


def assert_close(actual, expected, tolerance=1e-14):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def scipy_matrix(v):
    return torch.from_numpy(Rotation.from_rotvec(v.reshape(-1, 3)).as_matrix()).reshape(*v.shape, 3)


def test_exp_is_scipys():
    v = vectors([*ANGLES, *SEAM, 4.0, 7.0])
    assert_close(rotations.exp(v), scipy_matrix(v))


def test_log_is_scipys():
    R = scipy_matrix(vectors(ANGLES))
    expected = Rotation.from_matrix(R.reshape(-1, 3, 3)).as_rotvec()
    assert_close(rotations.log(R), torch.from_numpy(expected).reshape(*R.shape[:-1]))


def test_log_inverts_exp_to_rounding_at_small_angles_too():
    v = vectors(ANGLES)
    error = (rotations.log(rotations.exp(v)) - v).norm(dim=-1)
    assert (error <= 1e-15 * v.norm(dim=-1).clamp(max=1) + 1e-14 * v.norm(dim=-1)).all()


def test_exp_inverts_log_at_the_angle_pi():
    R = scipy_matrix(vectors(SEAM))
    v = rotations.log(R)
    assert_close(v.norm(dim=-1), torch.tensor(SEAM, dtype=torch.float64)[:, None].expand(2, 4))
    assert_close(rotations.exp(v), R)


def test_angle_has_relative_accuracy_at_both_ends():
    small = torch.tensor([1e-30, 1e-12, 1e-8, 1e-3], dtype=torch.float64)
    R = rotations.exp(small[:, None] * vectors([1.0])[0, 2])
    assert_close(rotations.angle(R) / small, torch.ones(4, dtype=torch.float64))
    R = scipy_matrix(vectors([math.pi - 1e-10]))
    assert_close(rotations.angle(R), torch.full((1, 4), math.pi - 1e-10, dtype=torch.float64))


def test_quaternions_are_scipys_with_a_positive_real_part():
    R = scipy_matrix(vectors([*ANGLES, *SEAM]))
    q = rotations.quaternion_from_matrix(R)
    expected = Rotation.from_matrix(R.reshape(-1, 3, 3)).as_quat(scalar_first=True)
    expected = torch.from_numpy(expected).reshape(q.shape)
    sign = (q * expected).sum(-1, keepdim=True).sign()
    assert (q[..., 0] >= 0).all()
    assert_close(q, sign * expected)


def test_a_quaternion_of_any_length_and_sign_is_one_rotation():
    v = vectors(ANGLES)
    q = rotations.quaternion_from_vector(v)
    for factor in (-1.0, 1e-100, -1e100, 3.0):
        assert_close(rotations.matrix_from_quaternion(factor * q), rotations.exp(v))
    for factor in (-1.0, 1e-3, -7.0):
        assert_close(rotations.vector_from_quaternion(factor * q), v)


def test_compose_and_inverse_are_those_of_matrices():
    R, S = rotations.exp(vectors([0.3, 2.0])), rotations.exp(vectors([1.1, 3.0]).flip(1))
    assert_close(rotations.compose(R, S), R @ S)
    identity = torch.eye(3, dtype=torch.float64).expand_as(R)
    assert_close(rotations.compose(R, rotations.inverse(R)), identity)
    assert_close(rotations.compose(R[:1, :1], S), R[:1, :1] @ S)


def test_orthonormalize_leaves_rotations_and_makes_a_rotation_of_anything():
    R = rotations.exp(vectors([*ANGLES, *SEAM]))
    assert_close(rotations.orthonormalize(R), R)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1000, 3, 3, generator=generator, dtype=torch.float64)
    anything = torch.cat([noise, noise[:1] * 0, -torch.eye(3, dtype=torch.float64)[None]])
    result = rotations.orthonormalize(anything)
    assert_close(result @ result.mT, torch.eye(3, dtype=torch.float64).expand_as(result))
    assert (torch.linalg.det(result) > 0).all()


def test_orthonormalize_stays_within_about_twice_the_distance_of_the_nearest():
    generator = torch.Generator().manual_seed(0)
    v, error = torch.randn(2000, 12, generator=generator, dtype=torch.float64).split((3, 9), -1)
    M = rotations.exp(2 * v) + 1e-3 * error.unflatten(-1, (3, 3))
    U, _, Vh = torch.linalg.svd(M)
    nearest = (M - U @ Vh).flatten(1).norm(dim=1)
    ratio = (M - rotations.orthonormalize(M)).flatten(1).norm(dim=1) / nearest
    assert ratio.min() >= 1 and ratio.max() < 2.1 and ratio.mean() < 1.3


@pytest.mark.parametrize("angle", [0.0, 1e-8, 1e-4, 0.2, 0.5, 1.0, math.pi - 1e-3, math.pi])
def test_exp_has_the_derivatives_of_finite_differences(angle):
    v = vectors([angle])[0].requires_grad_()
    assert torch.autograd.gradcheck(rotations.exp, v)
    weights = double([[1.0, -2.0, 0.5], [0.3, 1.0, 2.0], [-1.0, 0.7, 0.1]]).expand(4, 3, 3)
    assert torch.autograd.gradgradcheck(rotations.exp, v, weights.clone().requires_grad_())


@pytest.mark.parametrize("angle", [0.0, 1e-4, 0.2, 1.0, math.pi - 1e-3, math.pi - 1e-5])
def test_log_has_the_derivatives_of_finite_differences_along_the_group(angle):
    R, step = rotations.exp(vectors([angle])[0]), torch.zeros(4, 3, dtype=torch.float64)
    step.requires_grad_()

    def moved(v):
        return rotations.compose(R, rotations.exp(v))

    assert torch.autograd.gradcheck(lambda v: rotations.log(moved(v)), step, eps=1e-7, atol=1e-7)
    if angle > 1e-3:
        assert torch.autograd.gradcheck(lambda v: rotations.angle(moved(v)), step, eps=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_derivatives_are_finite_at_every_angle(dtype):
    v = vectors([*ANGLES, *SEAM]).to(dtype).requires_grad_()
    R = rotations.exp(v)
    results = (R, rotations.log(R), rotations.angle(R), rotations.orthonormalize(R))
    for result in results:
        (slope,) = torch.autograd.grad(result.sum(), v, retain_graph=True)
        assert result.dtype == dtype and result.isfinite().all() and slope.isfinite().all()


def test_the_derivative_of_log_after_exp_is_the_identity_in_float32():
    v = vectors([0.0, 1e-6, 1e-2, 0.3, 2.0, math.pi - 1e-2]).float()

    def there_and_back(x):
        return rotations.log(rotations.exp(x))

    slopes = torch.func.vmap(torch.func.jacrev(there_and_back))(v.reshape(-1, 3))
    assert (slopes - torch.eye(3)).abs().max() < 1e-4


def test_every_layout_gives_the_same_rotations():
    v = vectors(ANGLES)
    R = rotations.exp(v)
    strided = v.transpose(0, 1).contiguous().transpose(0, 1)
    assert not strided.is_contiguous()
    assert torch.equal(rotations.exp(strided), R)
    assert torch.equal(rotations.log(R.mT.contiguous().mT), rotations.log(R))
    assert_close(rotations.log(R[3, 2]), rotations.log(R)[3, 2])
    assert rotations.exp(v[:0]).shape == (0, 4, 3, 3)
    assert rotations.log(R[:0]).shape == (0, 4, 3) and rotations.angle(R[:0]).shape == (0, 4)
