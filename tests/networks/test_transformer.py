"""What is true of a transformer over sites by its construction."""

import copy
import math

import pytest
import torch

import reversal as rv
from reversal.networks import CodePort, RealPort, SiteHead, SiteTransformer, TransformerBlock
from reversal.training.fitting import ports_of

NUM_SITES = 4


def network(**sizes) -> SiteTransformer:
    """A small transformer on R^4 x 3 codes, in float64, all of whose weights matter."""
    ports = {
        "real": RealPort((NUM_SITES,), (NUM_SITES,), (NUM_SITES,)),
        "code": CodePort((3, 3, 3), (3,), masked=True),
    }
    sizes = {"hidden_features": 12, "num_blocks": 2, "num_heads": 3, "dropout": 0.0} | sizes
    return shaken(SiteTransformer(ports, **sizes)).double()


def shaken(module):
    """Give weights that are 0 at first other values."""
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    return module


def states(n: int = 5):
    generator = torch.Generator().manual_seed(0)
    x = {
        "real": torch.randn(n, NUM_SITES, generator=generator, dtype=torch.float64),
        "code": torch.randint(0, 4, (n, 3), generator=generator),
    }
    t = {
        "real": torch.rand(n, NUM_SITES, generator=generator, dtype=torch.float64),
        "code": torch.full((n, 3), 0.4, dtype=torch.float64),
    }
    t["real"][0, 1], t["real"][1, 2] = 0.0, 1.0
    return x, t


def permuted(tree, order):
    return tree | {"real": tree["real"][:, order]}


def assert_close(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


def test_sites_that_change_places_with_their_weights_change_places_in_the_output(global_seed):
    net, order = network(), torch.tensor([2, 0, 3, 1])
    moved = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in moved.inward[0].parameters():
            parameter.copy_(parameter[order])
        for parameter in moved.heads[0].parameters():
            parameter.copy_(parameter[:, order])
    x, t = states()
    first, second = net(x, t), moved(permuted(x, order), permuted(t, order))
    assert_close(second["real"], first["real"][:, order])
    assert_close(second["code"], first["code"])


def test_sites_of_equal_weights_are_told_apart_by_what_they_show_alone(global_seed):
    """Then the network commutes with every permutation of them, and not before."""
    net, order, (x, t) = network(), torch.tensor([1, 3, 0, 2]), states()
    assert not torch.allclose(
        net(permuted(x, order), permuted(t, order))["real"], net(x, t)["real"][:, order], atol=1e-3
    )
    with torch.no_grad():
        for parameter in net.inward[0].parameters():
            parameter.copy_(parameter[:1].expand_as(parameter))
        for parameter in net.heads[0].parameters():
            parameter.copy_(parameter[:, :1].expand_as(parameter))
    first, second = net(x, t), net(permuted(x, order), permuted(t, order))
    assert_close(second["real"], first["real"][:, order])
    assert_close(second["code"], first["code"])


def test_a_block_is_attention_and_a_perceptron_as_they_are_written(global_seed):
    block = shaken(TransformerBlock(6, 2, 5, 0.0)).double()
    h = torch.randn(3, 4, 6, dtype=torch.float64)
    condition = torch.randn(3, 5, dtype=torch.float64)
    a, b, g, a2, b2, g2 = (part[:, None] for part in block.modulation(condition).split(6, 1))

    def norm(h):
        centered = h - h.mean(-1, keepdim=True)
        return centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    weights, bias = block.queries_keys_values.weight, block.queries_keys_values.bias
    query, key, value = (((1 + a) * norm(h) + b) @ weights.T + bias).split(6, -1)
    mixed = []
    for head in (slice(0, 3), slice(3, 6)):
        scores = query[..., head] @ key[..., head].mT / math.sqrt(3)
        mixed.append(scores.softmax(-1) @ value[..., head])
    expected = h + g * block.mixed(torch.cat(mixed, -1))
    inner = block.inner((1 + a2) * norm(expected) + b2)
    expected = expected + g2 * block.outer(inner * inner.sigmoid())
    assert_close(block(h, condition), expected)


def test_a_new_block_is_the_identity(global_seed):
    block, h = TransformerBlock(8, 2, 5, 0.0), torch.randn(3, 4, 8)
    assert torch.equal(block(h, torch.randn(3, 5)), h)


def test_without_blocks_no_site_sees_another(global_seed):
    net, (x, t) = network(num_blocks=0), states()
    moved = x | {"real": x["real"] + torch.tensor([1.0, 0, 0, 0])}
    change = (net(moved, t)["real"] - net(x, t)["real"]).abs().amax(0) > 0
    assert change.tolist() == [True, False, False, False]
    seen = network()
    change = (seen(moved, t)["real"] - seen(x, t)["real"]).abs().amax(0) > 0
    assert change.all()


def test_a_head_is_a_map_of_its_own_for_every_site_and_0_beyond_its_values(global_seed):
    port, tokens = CodePort((2, 5, 3), (3,), masked=True), torch.randn(4, 3, 6)
    head = shaken(SiteHead(port, 6))
    weights, biases = head.weight.split([2, 5, 3], 1), head.bias.split([2, 5, 3], 1)
    said = head(tokens, port)
    for site, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        width = weight.shape[1]
        torch.testing.assert_close(said[:, site, :width], tokens[:, site] @ weight + bias)
        assert not said[:, site, width:].any()


@pytest.mark.parametrize(
    "process",
    [
        rv.Independent(
            pose=rv.Brownian(rv.SO3(2)), angle=rv.Brownian(rv.Torus(2)),
            word=rv.Uniform(rv.Categorical(3, 4)), image=rv.Gaussian(rv.Euclidean(1, 2, 2)),
        ),
        rv.Independent(one=rv.Mask(rv.Categorical(3)), pose=rv.Brownian(rv.SO3())),
    ],
)  # fmt: skip
@pytest.mark.parametrize("clocks", [rv.SharedClock(), rv.FactorClocks(), rv.SiteClocks()], ids=str)
def test_it_denoises_every_space_under_every_law_of_clocks(process, clocks, global_seed):
    """New, it says what the perceptron says: nothing; so their losses are equal, bit for bit."""
    x_0, losses = process.prior.sample(8, torch.Generator().manual_seed(0)), []
    if "word" not in x_0:
        x_0 = {"one": torch.zeros(8, dtype=torch.int64), "pose": x_0["pose"]}
    for size in (rv.Transformer(8, 1, 2, 0.0), rv.Perceptron(8, 1, 0.0)):
        denoiser = rv.NetworkDenoiser(size.build(ports_of(process)), process, clocks=clocks)
        noise = torch.Generator().manual_seed(1)
        losses.append(rv.Regression()(denoiser, x_0, generator=noise))
    assert torch.equal(*losses)
    assert losses[0].isfinite().all()


def test_heads_that_do_not_share_the_width_are_refused():
    with pytest.raises(ValueError, match="num_heads=3 and hidden_features=8"):
        SiteTransformer({}, hidden_features=8, num_heads=3)
