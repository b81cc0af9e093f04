"""What a network is shown and what it may depend on."""

from itertools import pairwise

import pytest
import torch

from reversal.networks import CodePort, Perceptron, RealPort, TimeEmbedding, Transformer

SMALL = [Perceptron(16, 2, dropout=0.5), Transformer(16, 2, 2, dropout=0.5)]
each_trunk = pytest.mark.parametrize("size", SMALL, ids=lambda size: type(size).__name__)


def network(size):
    """A small network on R^(3) x (2, 5, 3 states) x SO(3), with weights that are not zero."""
    ports = {
        "real": RealPort((3,), (3,), (3,), frequencies=(1.0, 4.0)),
        "code": CodePort((2, 5, 3), (3,), masked=True),
        "pose": RealPort((3, 3), (), (3,)),
    }
    net = size.build(ports)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    return net.eval()


def states(n: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "real": torch.randn(n, 3, generator=generator),
        "code": torch.randint(0, 2, (n, 3), generator=generator),
        "pose": torch.randn(n, 3, 3, generator=generator),
    }


def clocks(n: int = 6) -> dict[str, torch.Tensor]:
    return {"real": torch.full((n, 3), 0.3), "code": torch.full((n, 3), 0.6),
            "pose": torch.full((n,), 0.2)}  # fmt: skip


@each_trunk
def test_a_dropped_site_says_nothing(size, global_seed):
    net, x, t = network(size), states(), clocks()
    t["real"][:, 1], t["code"][:, 2], t["pose"][:] = 1.0, 1.0, 1.0
    y = {name: part.clone() for name, part in x.items()}
    y["real"][:, 1] += 5.0
    y["code"][:, 2] = 3
    y["pose"] += 1.0
    first, second = net(x, t), net(y, t)
    assert all(torch.equal(first[name], second[name]) for name in x)
    y["real"][:, 0] += 1.0
    assert not torch.equal(net(y, t)["code"], first["code"])


@each_trunk
def test_known_running_and_dropped_are_told_apart(size, global_seed):
    net, x = network(size), states()
    outputs = []
    for at in (0.0, 2.0**-20, 1 - 2.0**-20, 1.0):
        t = clocks()
        t["real"][:, 0] = at
        outputs.append(net(x, t)["code"])
    assert all(not torch.equal(a, b) for a, b in pairwise(outputs))


@each_trunk
def test_an_item_does_not_depend_on_its_batch(size, global_seed):
    net, x, t = network(size).double(), states(), clocks()
    x = {name: part.double() if part.is_floating_point() else part for name, part in x.items()}
    whole = net(x, t)
    alone = net({k: v[2:3] for k, v in x.items()}, {k: v[2:3] for k, v in t.items()})
    none = net({k: v[:0] for k, v in x.items()}, {k: v[:0] for k, v in t.items()})
    for name in x:
        torch.testing.assert_close(alone[name], whole[name][2:3], rtol=0, atol=1e-12)
        assert none[name].shape == (0, *whole[name].shape[1:])


@each_trunk
def test_one_clock_for_all_is_the_same_clock_at_every_site(size, global_seed):
    net, x, t = network(size), states(), torch.linspace(0, 1, 6)
    spread = {"real": t[:, None].expand(6, 3), "code": t[:, None].expand(6, 3), "pose": t}
    first, second = net(x, t), net(x, spread)
    assert all(torch.equal(first[name], second[name]) for name in x)
    third = net(x, dict.fromkeys(x, t))
    assert all(torch.equal(first[name], third[name]) for name in x)


@each_trunk
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_numbers_and_no_weight_is_idle(size, dtype, scale, global_seed):
    net, t = network(size).to(dtype), {name: at.to(dtype) for name, at in clocks().items()}
    x = {k: scale * v.to(dtype) if v.is_floating_point() else v for k, v in states().items()}
    t["real"][0], t["real"][1], t["pose"][:2] = 0.0, 1.0, torch.tensor([0.0, 1.0])
    outputs = net(x, t)
    assert all(part.dtype == dtype for part in outputs.values())
    sum((part**2).sum() for part in outputs.values()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_codes_of_two_sites_share_no_row_and_no_logit(global_seed):
    """A change of site j's code by one row of the table moves the features of site j alone."""
    port = CodePort((2, 5, 3), (3,), masked=True, width=4)
    assert port.table.num_embeddings == 3 + 6 + 4
    assert port.num_outputs == 10
    t = torch.full((1, 3), 0.5)
    mask = torch.full((1, 3), 5)
    base = port.features(mask, t)
    seen = set()
    for site, cardinality in enumerate((2, 5, 3)):
        for code in range(cardinality):
            x = mask.clone()
            x[0, site] = code
            moved = (port.features(x, t) != base)[0].any(1)
            assert moved.tolist() == [other == site for other in range(3)]
            seen.add(tuple(port.features(x, t).flatten().tolist()))
    assert len(seen) == 10
    logits = port.shape(torch.arange(1.0, 11.0)[None])
    assert logits[0].tolist() == [[1, 2, 0, 0, 0], [3, 4, 5, 6, 7], [8, 9, 10, 0, 0]]


def test_angles_are_shown_without_a_seam(global_seed):
    port = RealPort((2,), (2,), (2,), periodic=True)
    x, t = torch.tensor([[3.0, -1.0]]), torch.full((1, 2), 0.4)
    shifted = port.features(x + 2 * torch.pi, t)
    torch.testing.assert_close(shifted, port.features(x, t), rtol=0, atol=1e-5)
    assert not torch.allclose(port.features(x + torch.pi, t), port.features(x, t))


def test_numbers_are_shown_beside_their_waves(global_seed):
    """A shift by the period of the waves moves the number alone."""
    port = RealPort((2,), (2,), (2,), frequencies=(1.0, 4.0))
    x, t = torch.tensor([[0.3, -1.0]], dtype=torch.float64), torch.full((1, 2), 0.4)
    before, after = (port.features(y, t)[0, :, :5] for y in (x, x + 2 * torch.pi))
    torch.testing.assert_close(after[:, 1:], before[:, 1:], rtol=0, atol=1e-12)
    torch.testing.assert_close(after[:, 0], x[0] + 2 * torch.pi, rtol=0, atol=1e-12)
    waves = torch.stack([x.sin(), (4 * x).sin(), x.cos(), (4 * x).cos()], -1)[0]
    torch.testing.assert_close(before[:, 1:], waves, rtol=0, atol=1e-12)


def test_the_time_embedding_reads_running_sites_alone():
    embed = TimeEmbedding()
    running = embed(torch.tensor([[0.3, 0.3, 0.3]]))
    mixed = embed(torch.tensor([[0.0, 0.3, 1.0]]))
    torch.testing.assert_close(mixed[:, :-1], running[:, :-1])
    assert mixed[0, -1] == pytest.approx(1 / 3)
    assert embed(torch.zeros(2, 3)).isfinite().all()


@each_trunk
def test_a_new_network_predicts_zero(size, global_seed):
    """Then the preconditioned estimate is the best linear one, and every posterior is uniform."""
    ports = {"real": RealPort((3,), (3,), (3,)), "code": CodePort((4,), (), masked=True)}
    net = size.build(ports)
    out = net(
        {"real": torch.randn(2, 3), "code": torch.tensor([0, 4])},
        {"real": torch.full((2, 3), 0.5), "code": torch.full((2,), 0.5)},
    )
    assert all(not part.any() for part in out.values())
