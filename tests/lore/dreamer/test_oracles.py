"""TorchRL's DreamerV3 parts as a second opinion, where they are exact."""

import warnings

import pytest
import torch

from lore.dreamer.dists import categorical_kl, twohot_bins, twohot_loss, twohot_mean, unimix_probs
from lore.dreamer.optim import LaProp
from lore.dreamer.returns import PercentileNorm
from lore.dreamer.rssm import RSSM
from lore.dreamer.types import Latent
from lore.sizes import SIZES


@pytest.fixture(scope="module")
def oracle():
    """The handful of TorchRL names under test; what it warns about at import is not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torchrl")
        from torchrl.modules import RSSMPriorV3, SymExpTwoHot
        from torchrl.objectives import dreamer_v3
        from torchrl.trainers import algorithms
    return {
        "prior": RSSMPriorV3,
        "twohot": SymExpTwoHot,
        "dreamer": dreamer_v3,
        "trainers": algorithms,
    }


def count_parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PRIOR_NAMES = {
    "rnn.belief_projection.0": "deter_in",
    "rnn.belief_projection.1": "deter_norm",
    "rnn.state_projection.0": "stoch_in",
    "rnn.state_projection.1": "stoch_norm",
    "rnn.action_projection.0": "action_in",
    "rnn.action_projection.1": "action_norm",
    "rnn.hidden_layers.0": "mix",
    "rnn.hidden_layers.1": "mix_norm",
    "rnn.gates": "gates",
    "rnn_to_prior_projector.0": "prior_net.mlp.linears.0",
    "rnn_to_prior_projector.1": "prior_net.mlp.norms.0",
    "rnn_to_prior_projector.3": "prior_net.mlp.linears.1",
    "rnn_to_prior_projector.4": "prior_net.mlp.norms.1",
    "rnn_to_prior_projector.6": "prior_net.out",
}


def their_prior(oracle, rssm: RSSM) -> torch.nn.Module:
    """TorchRL's block-GRU prior with the weights of ours."""
    size = rssm.size
    prior = oracle["prior"](
        action_shape=(rssm.actions,),
        action_dim=rssm.actions,
        hidden_dim=size.hidden,
        rnn_hidden_dim=size.deter,
        num_categoricals=size.stoch,
        num_classes=size.classes,
        recurrent_model="block_gru",
        unimix=0.01,
    )
    state = {}
    for name in prior.state_dict():
        layer, kind = name.rsplit(".", 1)
        ours = rssm.get_submodule(PRIOR_NAMES[layer])
        value = ours.scale if hasattr(ours, "scale") else getattr(ours, kind)
        state[name] = (
            value.transpose(0, 1) if value.dim() == 3 else value
        )  # ours [in/g, g, out/g], theirs [g, in/g, ...]
    prior.load_state_dict(state)
    return prior


def test_two_hot_bins_decoding_and_loss_agree(oracle):
    other, bins = oracle["twohot"](num_bins=255), twohot_bins()
    torch.testing.assert_close(bins, other.bins, rtol=1e-6, atol=0)
    logits = torch.randn(64, 255, generator=seeded()) * 3
    logits[:, :100] -= 30  # keep the far tail from swamping the comparison
    logits[:, 155:] -= 30
    target = torch.randn(64, generator=seeded(1)).exp() * torch.randn(64, generator=seeded(2)).sign()
    torch.testing.assert_close(twohot_mean(logits, bins), other.decode(logits), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(twohot_loss(logits, bins, target), other.loss(logits, target), rtol=1e-5, atol=1e-5)


def test_kl_terms_and_their_gradients_agree(oracle):
    post = (2 * torch.randn(5, 3, 32, 16, generator=seeded())).requires_grad_()
    prior = (2 * torch.randn(5, 3, 32, 16, generator=seeded(1))).requires_grad_()
    theirs = oracle["dreamer"].categorical_kl_terms(post, prior, free_nats=1.0, unimix=0.01)
    p, q = unimix_probs(post), unimix_probs(prior)
    ours = [categorical_kl(a, b).clamp(min=1.0).mean() for a, b in ((p.detach(), q), (p, q.detach()))]
    for one, other, logits in zip(ours, theirs, (prior, post), strict=True):
        torch.testing.assert_close(one, other)
        (mine,) = torch.autograd.grad(one, logits, retain_graph=True)
        (foreign,) = torch.autograd.grad(other, logits, retain_graph=True)
        torch.testing.assert_close(mine, foreign)


def test_percentile_normaliser_agrees_over_many_updates(oracle):
    from torchrl.modules import PercentileValueNorm

    ours, theirs = PercentileNorm(), PercentileValueNorm(shape=1)
    for i in range(50):
        returns = 10 * torch.randn(200, 1, generator=seeded(i))
        ours.update(returns)
        theirs.update(returns)
        torch.testing.assert_close(ours.scale(), theirs.scale()[0])
    assert ours.scale() > 1.5


def test_optimiser_agrees_over_many_updates_with_warm_up_and_clipping(oracle):
    shapes, generator = [(6, 5), (5,), (3, 4, 2)], seeded()
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    one = LaProp([(str(i), p) for i, p in enumerate(ours)], lr=1e-2, warmup=10)
    other = oracle["trainers"].DreamerV3Optimizer(theirs, lr=1e-2, warmup_steps=10)
    for i in range(40):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator) * 10 ** (i % 5 - 2)
            q.grad = p.grad.clone()
        one.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["tiny", "1m"])
def test_recurrence_and_prior_have_the_same_parameters_outputs_and_gradients(oracle, name):
    size = SIZES[name]
    rssm = RSSM(size, 17, 10, seeded())
    prior = their_prior(oracle, rssm)
    posterior = sum(p.numel() for n, p in rssm.named_parameters() if n.startswith("post_"))
    assert count_parameters(rssm) - posterior == count_parameters(prior)
    generator = seeded(1)
    deter = torch.randn(6, size.deter, generator=generator).tanh().requires_grad_()
    stoch = torch.nn.functional.one_hot(torch.randint(size.classes, (6, 32), generator=generator), size.classes).float()
    action = torch.randint(17, (6,), generator=generator)
    uniform = torch.rand(6, 32, generator=seeded(2))
    logits, _, belief = prior(
        stoch.flatten(1), deter, torch.nn.functional.one_hot(action, 17).float(), _uniform=uniform
    )
    nxt = rssm.imagine_step(Latent(deter, stoch), action, torch.rand(*stoch.shape[:2], generator=seeded(2)))
    torch.testing.assert_close(nxt.deter, belief)
    torch.testing.assert_close(rssm.prior(nxt.deter), logits)
    weight = torch.randn(belief.shape, generator=generator)
    (mine,) = torch.autograd.grad((nxt.deter * weight).sum(), deter)
    (foreign,) = torch.autograd.grad((belief * weight).sum(), deter)
    torch.testing.assert_close(mine, foreign)
