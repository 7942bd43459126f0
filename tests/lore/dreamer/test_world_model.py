import pytest
import torch

from lore.dreamer.dists import categorical_kl, unimix_probs
from lore.dreamer.losses import SCALES
from lore.dreamer.optim import LaProp, total_loss
from lore.dreamer.types import Observed
from lore.dreamer.world_model import WorldModel, unpack_latent
from lore.sizes import Size
from lore_datasets.environments import Environment
from lore_datasets.environments.crafter import KEY_SCHEME, VOCAB

CRAFTER = Environment("crafter", VOCAB, KEY_SCHEME, ())
SMALL = Size(deter=64, hidden=16, classes=4, depth=4, units=32, stoch=8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(batch: dict[str, torch.Tensor], seed: int = 0) -> torch.Tensor:
    """The numbers that draw the posteriors of a batch."""
    return torch.rand(*batch["prev_action"].T.shape, SMALL.stoch, generator=seeded(seed))


def make(observation: str = "pixels") -> WorldModel:
    return WorldModel(observation, CRAFTER, SMALL, image_size=16, mults=(2, 4), generator=seeded())


def records(batch: int = 3, length: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = seeded(seed)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=generator, dtype=torch.uint8)

    state = torch.cat([draw(19, batch, length, 63), draw(10, batch, length, 16), draw(2, batch, length, 25)], -1)
    false = torch.zeros(batch, length, dtype=torch.bool)
    return {
        "image": draw(256, batch, length, 16, 16, 3),
        "state": state,
        "action": draw(17, batch, length).long(),
        "reward": torch.randint(-1, 2, (batch, length), generator=generator).float(),
        "is_first": false.clone(),
        "is_last": false.clone(),
        "is_terminal": false.clone(),
        "deter": torch.rand(batch, length, 64, generator=generator).half(),
        "stoch": draw(4, batch, length, 8),
    }


def touched(model: WorldModel, loss: torch.Tensor) -> set[str]:
    """Parts of the model that a loss gives a gradient."""
    model.zero_grad()
    loss.mean().backward(retain_graph=True)
    names = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    return {_part(*name.split(".")[:2]) for name in names}


def _part(owner: str, layer: str) -> str:
    if owner != "rssm":
        return owner
    return "posterior" if layer.startswith("post_") else "prior" if layer == "prior_net" else "core"


def open_outputs(model: WorldModel) -> None:
    """Zero-initialised output layers pass no gradient on: give them weights, as after the first updates."""
    torch.nn.init.normal_(model.reward.out.weight, std=0.1, generator=seeded(9))


def test_the_context_record_gives_only_its_latent_and_its_action():
    model, rec = make(), records()
    batch, start = model.split_context(rec)
    assert torch.equal(batch["prev_action"], rec["action"][:, :-1]), "action[t-1] goes with step t"
    assert torch.equal(batch["image"], rec["image"][:, 1:]) and torch.equal(batch["reward"], rec["reward"][:, 1:])
    assert torch.equal(start.deter, rec["deter"][:, 0].float())
    assert torch.equal(start.stoch.argmax(-1), rec["stoch"][:, 0].long())
    assert "deter" not in batch and "stoch" not in batch


def test_is_first_of_the_context_record_does_not_reset_the_first_trained_step():
    model, rec = make(), records()
    rec["is_first"][:, 0] = True
    batch, _ = model.split_context(rec)
    assert not batch["is_first"].any()


def test_a_step_before_an_episode_start_counts_as_last():
    model, rec = make(), records()
    rec["is_first"][1, 3] = True
    batch, _ = model.split_context(rec)
    assert batch["is_last"].nonzero().tolist() == [[1, 1]] and batch["is_first"].nonzero().tolist() == [[1, 2]]


def test_stored_latents_unpack_to_one_hot_float32():
    latent = unpack_latent(torch.ones(2, 3).half(), torch.tensor([[0, 3], [2, 1]], dtype=torch.uint8), 4)
    assert latent.deter.dtype == latent.stoch.dtype == torch.float32
    assert latent.stoch.argmax(-1).tolist() == [[0, 3], [2, 1]] and latent.stoch.sum() == 4


@pytest.mark.parametrize(("observation", "reconstruction"), [("pixels", "image"), ("symbolic", "state")])
def test_losses_are_per_step_and_start_where_they_should(observation, reconstruction):
    model = make(observation)
    batch, start = model.split_context(records())
    losses, seen, metrics = model.loss(batch, start, drawn(batch, 0))
    assert set(losses) == {"dyn", "rep", "rew", "con", reconstruction}
    assert all(x.shape == (3, 5) and x.dtype == torch.float32 for x in losses.values())
    torch.testing.assert_close(losses["rew"], torch.full((3, 5), 5.541264))
    assert losses["dyn"].min() >= 1 and losses["rep"].min() >= 1
    assert seen.latent.deter.shape == (3, 5, 64) and seen.prior_logits.shape == (3, 5, 8, 4)
    assert 0 < metrics["rep_ent"] < 8 * 1.3863 + 1e-3 and not metrics["dyn_ent"].requires_grad


def test_image_loss_is_the_sum_over_pixels_of_squared_errors():
    model = make()
    batch, start = model.split_context(records())
    losses, seen, _ = model.loss(batch, start, drawn(batch, 0))
    frame = model.decoder(seen.latent.deter, seen.latent.stoch.flatten(-2))
    expected = (frame - batch["image"] / 255.0).square().sum((-3, -2, -1))
    torch.testing.assert_close(losses["image"], expected)
    assert losses["image"].mean() > 16 * 16 * 3 / 20, "a mean over pixels would be far smaller"


def test_continue_label_is_zero_at_a_terminal_and_332_of_333_elsewhere_even_at_a_time_limit():
    model, rec = make(), records()
    rec["is_terminal"][0, 2] = rec["is_last"][0, 2] = rec["is_last"][1, 2] = True
    batch, start = model.split_context(rec)
    losses, seen, _ = model.loss(batch, start, drawn(batch, 0))
    logit = model.cont(seen.latent.features()).squeeze(-1)
    label = torch.full((3, 5), 1 - 1 / 333)
    label[0, 1] = 0.0
    expected = -(label * logit.sigmoid().log() + (1 - label) * (1 - logit.sigmoid()).log())
    torch.testing.assert_close(losses["con"], expected)


def test_kl_terms_of_equal_logits_are_exactly_one_without_gradient():
    model = make()
    logits = torch.randn(2, 3, 8, 4, generator=seeded(), requires_grad=True)
    losses, _ = model.kl_losses(Observed(model.rssm.initial(1), logits, logits))
    assert torch.equal(losses["dyn"], torch.ones(2, 3)) and torch.equal(losses["rep"], torch.ones(2, 3))
    (grad,) = torch.autograd.grad(losses["dyn"].sum() + losses["rep"].sum(), logits)
    assert grad.abs().max() == 0


def test_free_nats_clamp_the_sum_over_the_categoricals():
    model = make()
    post, prior = torch.zeros(1, 1, 8, 4), torch.zeros(1, 1, 8, 4)
    post[..., 0] = 1.5
    kl = categorical_kl(unimix_probs(post), unimix_probs(prior))
    per_categorical = kl.item() / 8
    assert per_categorical < 1 < kl.item(), "the case must tell the two readings apart"
    losses, _ = model.kl_losses(Observed(model.rssm.initial(1), post, prior))
    torch.testing.assert_close(losses["dyn"], kl)


def test_dyn_and_rep_send_their_gradient_to_their_own_side():
    model = make()
    post = (3 * torch.randn(2, 3, 8, 4, generator=seeded(1))).requires_grad_()
    prior = (3 * torch.randn(2, 3, 8, 4, generator=seeded(2))).requires_grad_()
    losses, _ = model.kl_losses(Observed(model.rssm.initial(1), post, prior))
    dyn = torch.autograd.grad(losses["dyn"].sum(), [post, prior], allow_unused=True, retain_graph=True)
    rep = torch.autograd.grad(losses["rep"].sum(), [post, prior], allow_unused=True)
    assert dyn[0] is None and dyn[1].abs().sum() > 0
    assert rep[1] is None and rep[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("loss", "parts"),
    [
        ("image", {"decoder", "core", "posterior", "encoder"}),
        ("rew", {"reward", "core", "posterior", "encoder"}),
        ("con", {"cont", "core", "posterior", "encoder"}),
        ("dyn", {"prior", "core", "posterior", "encoder"}),
        ("rep", {"core", "posterior", "encoder"}),
    ],
)
def test_each_loss_trains_exactly_these_parts(loss, parts):
    model = make()
    open_outputs(model)
    with torch.no_grad():  # far from the free nats, so that the KL has a gradient
        model.rssm.prior_net.out.weight.mul_(30)
        model.rssm.post_out.weight.mul_(30)
    batch, start = model.split_context(records())
    losses, _, _ = model.loss(batch, start, drawn(batch, 0))
    assert touched(model, losses[loss]) == parts


def test_the_first_step_of_dyn_gives_the_posterior_nothing():
    model = make()
    with torch.no_grad():
        model.rssm.prior_net.out.weight.mul_(30)
    batch, start = model.split_context(records())
    losses, _, _ = model.loss(batch, start, drawn(batch, 0))
    assert losses["dyn"][:, 0].max() > 1
    assert touched(model, losses["dyn"][:, 0]) == {"prior", "core"}


def test_observation_reward_and_flags_are_aligned_with_the_same_step():
    model, rec = make(), records()
    open_outputs(model)
    batch, start = model.split_context(rec)
    plain, _, _ = model.loss(batch, start, drawn(batch, 3))
    rec["reward"][0, 4] += 5.0
    changed, _, _ = model.loss(model.split_context(rec)[0], start, drawn(batch, 3))
    differs = (plain["rew"] != changed["rew"]).nonzero().tolist()
    assert differs == [[0, 3]]


def test_predict_gives_zero_reward_at_the_start_and_a_probability():
    model = make()
    reward, cont = model.predict(torch.randn(7, model.features, generator=seeded()))
    assert torch.equal(reward, torch.zeros(7)) and (cont > 0).all() and (cont < 1).all()


@pytest.mark.parametrize(("observation", "reconstruction"), [("pixels", "image"), ("symbolic", "state")])
def test_one_fixed_batch_can_be_learned_by_heart(observation, reconstruction):
    model = make(observation)
    rec = records(batch=2, length=9)
    which = torch.randint(4, (2, 9), generator=seeded(4))  # four scenes of large cells
    scenes = torch.rand(4, 4, 1, 4, 1, 3, generator=seeded(5)).expand(4, 4, 4, 4, 4, 3).reshape(4, 16, 16, 3)
    rec["image"], rec["state"] = (255 * scenes[which]).byte(), rec["state"].flatten(0, 1)[:4][which]
    rec["reward"] = torch.tensor([-1.0, 0.0, 0.0, 1.0])[which]
    batch, start = model.split_context(rec)
    start.deter.zero_()
    start.stoch.zero_()
    optim = LaProp(model.named_parameters(), lr=1e-3, warmup=20)
    generator, first = seeded(1), None
    for _ in range(220):
        losses, _, _ = model.loss(batch, start, torch.rand(8, 2, SMALL.stoch, generator=generator))
        optim.zero_grad()
        total_loss(losses, {**SCALES, reconstruction: 1.0}).backward()
        optim.step()
        first = first or losses[reconstruction].mean().item()
    mean = {name: value.mean().item() for name, value in losses.items()}
    floor = 0.666 * batch["reward"].abs().mean().item()
    assert mean[reconstruction] * 20 < first, mean
    assert mean["rew"] < floor + 0.15, (mean, floor)
    assert mean["dyn"] < 2.0, mean
