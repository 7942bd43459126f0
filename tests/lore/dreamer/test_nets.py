import pytest
import torch

from lore.dreamer.actor_critic import ActorCritic
from lore.dreamer.nets import (
    BlockLinear,
    Conv,
    Head,
    ImageDecoder,
    ImageEncoder,
    Linear,
    NormAct,
    init_weight,
)
from lore.dreamer.symbols import StateCodec, SymbolicDecoder, SymbolicEncoder
from lore.dreamer.world_model import WorldModel
from lore.sizes import SIZES
from lore_datasets.environments import Environment
from lore_datasets.environments.crafter import KEY_SCHEME, VOCAB

CRAFTER = Environment("crafter", VOCAB, KEY_SCHEME, ())


def count_parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_states(rows: int, seed: int = 0) -> torch.Tensor:
    generator = seeded(seed)

    def draw(high: int, columns: int) -> torch.Tensor:
        return torch.randint(high, (rows, columns), generator=generator, dtype=torch.uint8)

    parts = [draw(19, 63), draw(10, 16), draw(4, 1), draw(2, 1), draw(256, 1), draw(2, 22)]
    return torch.cat(parts, -1)


PARAMETERS = {
    "1m": 687_875,
    "12m": 10_498_259,
    "25m": 23_495_475,
    "50m": 41_658_259,
    "100m": 93_480_531,
    "200m": 165_965_075,
    "400m": 372_920_979,
}


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_parameter_count_for_crafter_pixels(name, expected):
    with torch.device("meta"):
        model = WorldModel("pixels", None, SIZES[name], actions=17)
        agent = ActorCritic(model.features, 17, SIZES[name])
    assert count_parameters(model) + sum(p.numel() for p in agent.parameters() if p.requires_grad) == expected


def test_parameter_count_by_part_at_1m():
    with torch.device("meta"):
        model = WorldModel("pixels", None, SIZES["1m"], actions=17)
        agent = ActorCritic(model.features, 17, SIZES["1m"])
    parts = [model.encoder, model.decoder, model.reward, model.cont, agent.actor, agent.critic]
    assert count_parameters(model.rssm) == 377_408
    assert [round(count_parameters(part) / 1000) for part in parts] == [14, 81, 58, 41, 51, 66]


def test_every_size_has_deter_eight_times_hidden():
    assert all(size.deter == 8 * size.hidden and size.stoch == 32 and size.blocks == 8 for size in SIZES.values())


def test_initial_weights_have_the_right_spread_and_are_cut_at_two_sigma():
    weight = torch.empty(400, 500)
    init_weight(weight, 500, seeded())
    assert (weight.std() * 500**0.5).item() == pytest.approx(1.0, abs=0.01)
    assert weight.abs().max() <= 2 * 1.1368 / 500**0.5


def test_block_layer_starts_with_the_fan_in_of_its_whole_input():
    layer = BlockLinear(512, 512, 8, seeded())
    assert (layer.weight.std() * 512**0.5).item() == pytest.approx(1.0, abs=0.02)


def test_block_layer_maps_chunk_to_chunk():
    layer = BlockLinear(16, 24, 8, seeded())
    x = torch.randn(5, 16, generator=seeded(1))
    dense = torch.block_diag(*layer.weight.detach().transpose(0, 1))
    torch.testing.assert_close(layer(x), x @ dense + layer.bias)


def test_an_input_shared_by_all_blocks_equals_its_copy_in_every_block():
    layer = BlockLinear(40, 24, 8, seeded())
    torch.nn.init.normal_(layer.bias, generator=seeded(3))
    own, shared = torch.randn(8, 5, 2, generator=seeded(1)), torch.randn(5, 3, generator=seeded(2))
    copied = torch.cat([own, shared.expand(8, 5, 3)], -1).transpose(0, 1).reshape(5, 40)
    torch.testing.assert_close(layer.with_shared(own, shared), layer(copied))


@pytest.mark.parametrize("rows", [3, 2000])
def test_norm_and_its_gradient_equal_the_textbook_form_at_any_size(rows):
    norm = NormAct(32)
    torch.nn.init.normal_(norm.scale, generator=seeded())
    x = torch.randn(rows, 32, generator=seeded(1), requires_grad=True)
    expected = torch.nn.functional.silu(norm.scale * x / (x.square().mean(-1, keepdim=True) + 1e-4).sqrt())
    torch.testing.assert_close(norm(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), expected)
    grad = torch.randn(rows, 32, generator=seeded(2))
    ours = torch.autograd.grad(norm(x), [x, norm.scale], grad)
    theirs = torch.autograd.grad(expected, [x, norm.scale], grad)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_heads_that_start_at_zero_do_and_the_actor_starts_small():
    agent = ActorCritic(40, 17, SIZES["tiny"], generator=seeded())
    x = torch.randn(3, 40, generator=seeded(1))
    assert agent.critic(x).abs().max() == 0 and agent.value(x).abs().max() == 0
    assert 0 < agent.actor(x).abs().max() < 0.1
    assert Head(40, 255, 1, 8, seeded(), outscale=0.0)(x).abs().max() == 0


def test_rms_norm_uses_eps_1e_4_and_no_shift():
    norm = NormAct(8)
    assert dict(norm.named_parameters()).keys() == {"scale"}
    x = torch.full((1, 8), 1e-3)
    normed = torch.tensor(0.0995)
    torch.testing.assert_close(norm(x), torch.nn.functional.silu(normed).expand(1, 8), rtol=1e-3, atol=0)


def test_norm_computes_in_float32_and_returns_the_input_dtype():
    x = torch.randn(4, 64, generator=seeded()).bfloat16()
    out = NormAct(64)(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, NormAct(64)(x.float()).bfloat16())


@pytest.mark.parametrize(("size", "mults", "side"), [(64, (2, 3, 4, 4), 4), (16, (2, 4), 4)])
def test_encoder_halves_the_frame_per_stage_and_flattens(size, mults, side):
    encoder = ImageEncoder(4, size, mults, seeded())
    image = torch.randint(256, (2, 3, size, size, 3), generator=seeded(), dtype=torch.uint8)
    tokens = encoder(image)
    assert tokens.shape == (2, 3, side * side * 4 * mults[-1]) and encoder.tokens == tokens.shape[-1]
    torch.testing.assert_close(encoder(image[1, 2]), tokens[1, 2], atol=1e-5, rtol=1e-4)


def test_encoder_pools_before_it_normalises():
    encoder = ImageEncoder(4, 16, (2,), seeded())
    image = torch.randint(256, (1, 16, 16, 3), generator=seeded(), dtype=torch.uint8)
    x = image.permute(0, 3, 1, 2).float() / 255 - 0.5
    conv = torch.nn.functional.conv2d(x, encoder.convs[0].weight, encoder.convs[0].bias, padding=2)
    pooled = torch.nn.functional.max_pool2d(conv, 2).permute(0, 2, 3, 1)
    expected = torch.nn.functional.silu(pooled / (pooled.square().mean(-1, keepdim=True) + 1e-4).sqrt())
    torch.testing.assert_close(encoder(image), expected.flatten(1), atol=1e-5, rtol=1e-4)


def test_decoder_starts_near_grey_and_is_a_probability():
    size = SIZES["1m"]
    decoder = ImageDecoder(size.deter, 128, size.depth, size.units, 8, 64, (2, 3, 4, 4), seeded())
    out = decoder(torch.zeros(2, 3, 512), torch.zeros(2, 3, 128))
    assert out.shape == (2, 3, 64, 64, 3) and out.dtype == torch.float32
    assert (out - 0.5).abs().max() < 0.25 and (out >= 0).all() and (out <= 1).all()


def test_decoder_keeps_the_deter_of_each_block_in_its_own_channels():
    decoder = ImageDecoder(64, 8, 4, 16, 8, 16, (2, 4), seeded())
    x = torch.randn(1, 64, generator=seeded(1))
    by_block = decoder.from_deter(x).view(1, 8, 4, 4, 2)  # [N, g, h, w, c/g]
    seen: list[torch.Tensor] = []
    decoder.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    decoder(x, torch.zeros(1, 8))
    bias = decoder.from_stoch(torch.zeros(1, 8)).view(1, 4, 4, 16)
    for block in range(8):
        torch.testing.assert_close(
            seen[0][..., 2 * block : 2 * block + 2] - bias[..., 2 * block : 2 * block + 2], by_block[:, block]
        )


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5), (1, 1)])
def test_upsampling_convolution_is_nearest_doubling_then_a_5x5_convolution(height, width):
    conv = Conv(6, 4, seeded(), upsample=True)
    torch.nn.init.normal_(conv.bias, generator=seeded(1))
    x = torch.randn(2, 6, height, width, generator=seeded(2), requires_grad=True)
    doubled = torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    expected = torch.nn.functional.conv2d(doubled, conv.weight, conv.bias, padding=2)
    found = conv(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    gradient = torch.randn(expected.shape, generator=seeded(3))
    inputs = [x, conv.weight, conv.bias]
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, gradient), torch.autograd.grad(expected, inputs, gradient), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_symbolic_encoder_equals_a_dense_layer_on_one_hot_planes_and_vector():
    encoder, states = SymbolicEncoder(StateCodec(CRAFTER), 32, seeded()), random_states(6)
    planes = torch.nn.functional.one_hot(states[:, :63].long(), 19).flatten(1)
    facing = torch.nn.functional.one_hot(states[:, 79].long(), 4)
    vector = [states[:, 63:79] / 9.0, facing, states[:, 80:81], states[:, 81:82] / 255.0, states[:, 82:]]
    dense = torch.cat([planes, *vector], -1).float()
    assert dense.shape[-1] == 63 * 19 + 44 == encoder.first.weight.shape[0]
    expected = dense @ encoder.first.weight + encoder.first.bias
    seen: list[torch.Tensor] = []
    encoder.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(states.view(2, 3, 104))
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-4)


def test_symbolic_tokens_ignore_cell_ids_outside_the_vocabulary():
    encoder, states = SymbolicEncoder(StateCodec(CRAFTER), 32, seeded()), random_states(2)
    strange, nothing = states.clone(), states.clone()
    strange[:, 5], nothing[:, 5] = 200, 0
    assert torch.equal(encoder(strange), encoder(nothing))


def test_symbolic_loss_sums_cross_entropies_and_symlog_errors():
    decoder, states = SymbolicDecoder(StateCodec(CRAFTER), 12, 32, seeded()), random_states(4)
    features = torch.randn(4, 12, generator=seeded(1))
    cells, facing, scalars = decoder(features)
    raw = torch.cat([states[:, 63:79].float(), states[:, 80:81], states[:, 81:82] / 255.0, states[:, 82:]], -1)
    view = -cells.log_softmax(-1).gather(-1, states[:, :63].long().unsqueeze(-1)).sum((1, 2))
    turn = -facing.log_softmax(-1).gather(-1, states[:, 79:80].long()).sum(-1)
    expected = view + turn + (scalars - torch.log1p(raw)).square().sum(-1)
    torch.testing.assert_close(decoder.loss(features, states), expected)


def test_symbolic_loss_of_numbers_as_classes_sums_cross_entropies_and_tells_what_is_unlocked():
    decoder, states = SymbolicDecoder(StateCodec(CRAFTER), 12, 32, seeded(), class_weight=3.0), random_states(4)
    features = torch.randn(4, 12, generator=seeded(1))
    cells, facing, numbers = decoder(features)
    view = -cells.log_softmax(-1).gather(-1, states[:, :63].long().unsqueeze(-1)).sum((1, 2))
    turn = -facing.log_softmax(-1).gather(-1, states[:, 79:80].long()).sum(-1)
    counts, light, flags = numbers[:, :160].view(4, 16, 10), numbers[:, 160:170], numbers[:, 170:]
    assert flags.shape[1] == 23  # asleep, and 22 achievements
    told = -counts.log_softmax(-1).gather(-1, states[:, 63:79].long().unsqueeze(-1)).sum((1, 2))
    told -= light.log_softmax(-1).gather(-1, (states[:, 81:82].long() * 10) // 256).sum(-1)
    true = torch.cat([states[:, 80:81], states[:, 82:]], -1).bool()
    told -= torch.where(true, flags, -flags).sigmoid().log().sum(-1)
    torch.testing.assert_close(decoder.loss(features, states), view + turn + 3.0 * told)
    assert torch.equal(decoder.unlocked(features), flags[:, 1:] > 0)
    strange = states.clone()
    strange[:, 63:79] = 200  # more than the vocabulary counts to: as the most that it does
    states[:, 63:79] = 9
    assert torch.equal(decoder.loss(features, strange), decoder.loss(features, states))


def test_same_generator_seed_gives_the_same_network():
    one, other = Linear(8, 8, seeded(3)), Linear(8, 8, seeded(3))
    assert torch.equal(one.weight, other.weight) and not torch.equal(one.weight, Linear(8, 8, seeded(4)).weight)
