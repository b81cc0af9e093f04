"""A U-Net sees every image alone, its class and its clock, at any size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import reversal as rv

pytestmark = pytest.mark.usefixtures("global_seed")


def woken(network: nn.Module) -> nn.Module:
    """Fill the layers that start at zero, so that everything counts."""
    for weight in network.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.1)
    return network.double().eval()


def images(n: int, *size: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    x = torch.randn((n, *size), generator=rng, dtype=torch.float64)
    return x, torch.rand(n, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("size", [(1, 7, 5), (3, 8, 8), (2, 1, 1)])
def test_items_do_not_see_each_other(size: tuple[int, ...]):
    network = woken(rv.UNet(size[0], (8, 16), num_classes=3))
    x, t = images(4, *size)
    classes = torch.tensor([0, 3, 1, 2])
    whole = network(x, t, classes)
    alone = [network(x[k : k + 1], t[k : k + 1], classes[k : k + 1]) for k in range(4)]
    torch.testing.assert_close(whole, torch.cat(alone), rtol=1e-10, atol=1e-10)
    assert whole.shape == x.shape
    assert network(x[:0], t[:0], classes[:0]).shape == x[:0].shape


def test_every_input_and_every_weight_counts():
    network = woken(rv.UNet(1, (8, 8, 16), num_blocks=2, num_classes=2, num_heads=2))
    x, t = images(3, 1, 12, 12)
    x.requires_grad_()
    t.requires_grad_()
    network(x, t, torch.tensor([0, 1, 2])).square().sum().backward()
    for part in (x.grad, t.grad, *(w.grad for w in network.parameters())):
        assert part is not None
        assert bool((part != 0).any())


def test_a_far_pixel_is_seen_through_the_coarse_images():
    network = woken(rv.UNet(1, (8, 8, 8), num_heads=0))
    x, t = images(1, 1, 16, 16)
    other = x.clone()
    other[..., 15, 15] += 1
    assert bool((network(x, t) != network(other, t))[..., 0, 0].all())


def test_no_condition_is_the_class_of_none_and_a_new_network_says_zero():
    network = rv.UNet(1, (8, 16), num_classes=3)
    x, t = images(2, 1, 6, 6)
    assert not network(x.float(), t.float()).any()
    network = woken(network)
    none = network(x, t, torch.tensor([3, 3]))
    torch.testing.assert_close(network(x, t), none, rtol=0, atol=0)
    assert not torch.allclose(network(x, t, torch.tensor([0, 1])), none)


def test_site_clocks_are_shown_pixel_by_pixel():
    network = woken(rv.UNet(1, (8,), site_clocks=True, num_heads=0))
    x, t = images(1, 1, 6, 6)
    clock = t[:, None, None, None].expand_as(x).clone()
    other = clock.clone()
    other[..., 0, 0], other[..., 0, 1] = clock[..., 0, 0] + 0.1, clock[..., 0, 1] - 0.1
    assert not torch.allclose(network(x, clock), network(x, other), atol=1e-6)


def test_it_trains_a_denoiser_of_images_with_pixels_known():
    space = rv.Euclidean(1, 4, 4)
    network = rv.UNet(1, (8, 8), num_heads=0, site_clocks=True)
    denoiser = rv.NetworkDenoiser(network, rv.Gaussian(space), rv.Noise(), rv.SiteClocks())
    x, _ = images(8, 1, 4, 4)
    loss = rv.Regression()(denoiser, x.float(), generator=torch.Generator().manual_seed(0))
    assert loss.shape == (8,)
    drawn = rv.Ancestral().sample(denoiser, 2, 4, given=(x[:2].float(), x[0] > 0))
    torch.testing.assert_close(drawn[:, x[0] > 0], x[:2, x[0] > 0].float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rv.UNet(1, ()), "width >= 2"),
        (lambda: rv.UNet(1, (8,), num_heads=3), "divisor"),
        (lambda: rv.UNet(1, (8,))(torch.zeros(2, 3, 4, 4), torch.zeros(2)), "Euclidean"),
        (lambda: rv.UNet(1, (8,))(torch.zeros(2, 4, 4), torch.zeros(2)), "images"),
        (lambda: rv.UNet(1, (8,))(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)), "site_clocks"),
        (lambda: rv.UNet(1, (8,))(torch.zeros(2, 1, 4, 4), torch.zeros(2), "cat"), "class"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
