import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_pipeline.config.recipe import Padding
from nst_pipeline.config.weights import COMPACT_PATH
from nst_pipeline.engine import StyleTransfer, winograd
from nst_pipeline.engine.convolution import Convolution, is_by_winograd, prepare, with_border
from nst_pipeline.engine.vgg import load_trunk

PADDINGS = pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect"])


def noise(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(memory_format=torch.channels_last)


def layer(channels: int, widths: int, padding: Padding = "zeros") -> Convolution:
    made = Convolution(channels, widths, padding)
    with torch.no_grad():
        made.weight.copy_(noise(widths, channels, 3, 3) / (3 * channels**0.5))
        assert made.bias is not None
        made.bias.copy_(torch.linspace(-1, 1, widths))
    return made.to(memory_format=torch.channels_last)


def plain(one: Convolution) -> nn.Conv2d:
    """Return torch's own convolution with the same weights."""
    other = nn.Conv2d(
        one.in_channels, one.out_channels, 3, padding=1, padding_mode=one.padding_mode
    )
    other.load_state_dict(one.state_dict())
    return other.requires_grad_(False).to(one.weight.dtype).to(memory_format=torch.channels_last)


def results(module: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a convolution gives, and the gradient of a weighted sum of it."""
    image = image.clone().requires_grad_()
    found = module(image)
    (gradient,) = torch.autograd.grad(found, image, noise(*found.shape, seed=9).to(found))
    return found.detach(), gradient


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().norm() / other.detach().norm())


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 16, 12), (2, 13, 18), (1, 200, 7)])
@pytest.mark.parametrize("band_bytes", [1, winograd.BAND_BYTES])
def test_winograds_algorithm_gives_the_convolution_and_its_gradient(
    batch: int, height: int, width: int, band_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "BAND_BYTES", band_bytes)
    monkeypatch.setattr(winograd, "BAND_TILES", 1 if band_bytes == 1 else winograd.BAND_TILES)
    image = noise(batch, 5, height + 2, width + 2).requires_grad_()
    weight, bias, back = noise(7, 5, 3, 3), noise(1, 7, 1, 1).flatten(), noise(1, 7, height, width)
    found = winograd.convolve(image, winograd.transform_kernels(weight), bias)
    right = F.conv2d(image.double(), weight.double(), bias.double())
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert distance(found, right) < 1e-5
    gradients = (torch.autograd.grad((one * back).sum(), image)[0] for one in (found, right))
    assert distance(*gradients) < 1e-5


@PADDINGS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_convolution_of_few_channels_gives_the_bytes_of_torchs(
    padding: Padding, dtype: torch.dtype
) -> None:
    made, image = layer(8, 16, padding).to(dtype), noise(2, 8, 21, 34).to(dtype)
    made.prepare()
    (ours, gradient), (theirs, right) = results(made, image), results(plain(made), image)
    assert torch.equal(ours, theirs)
    corners = gradient[..., ::20, ::33], right[..., ::20, ::33]
    # Their four numbers are added in another order.
    torch.testing.assert_close(
        *corners, rtol=0, atol=float(torch.finfo(dtype).eps * right.abs().max())
    )
    for each in corners:
        each.zero_()
    assert torch.equal(gradient, right)


@PADDINGS
def test_a_convolution_of_many_channels_gives_torchs_but_for_rounding(padding: Padding) -> None:
    made, image = layer(128, 256, padding), noise(1, 128, 22, 17)
    made.prepare()
    pairs = list(zip(results(made, image), results(plain(made), image), strict=True))
    assert all(distance(*pair) < 1e-5 for pair in pairs)
    assert not any(torch.equal(*pair) for pair in pairs)  # by another algorithm


def test_winograds_algorithm_is_for_many_channels_and_no_tiny_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert is_by_winograd(64, 128) and not is_by_winograd(64, 64)
    assert not is_by_winograd(32, 512) and not is_by_winograd(512, 32)
    assert is_by_winograd(96, 96, 12, 16) and not is_by_winograd(96, 96, 8, 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert is_by_winograd(128, 256) and not is_by_winograd(128, 128)


@pytest.mark.parametrize("size", [(2, 2), (2, 9), (7, 5), (1, 4), (4, 1), (1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_repeated_border_and_its_gradient_are_torchs(
    size: tuple[int, int], layout: torch.memory_format
) -> None:
    image = noise(2, 3, *size).double().contiguous(memory_format=layout).requires_grad_()
    ours = with_border(image, "replicate")
    theirs = F.pad(image, (1, 1, 1, 1), mode="replicate")
    assert torch.equal(ours, theirs)
    back = noise(*ours.shape, seed=1).double()
    pair = (torch.autograd.grad(each, image, back)[0] for each in (ours, theirs))
    torch.testing.assert_close(*pair)


def test_bf16_is_convolved_as_by_torch_whatever_the_channels() -> None:
    made, image = layer(128, 256).to(torch.bfloat16), noise(1, 128, 32, 32).to(torch.bfloat16)
    made.prepare()
    pairs = zip(results(made, image), results(plain(made), image), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


@PADDINGS
@pytest.mark.parametrize("channels", [8, 128])
def test_nothing_is_kept_for_the_gradient_but_what_came_in(channels: int, padding: Padding) -> None:
    made, kept = layer(channels, 256, padding), list[Tensor]()
    made.prepare()
    image = noise(1, channels, 32, 32).requires_grad_()

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        made(image)
    assert {one.data_ptr() for one in kept} <= {image.data_ptr()}


def test_a_transfer_in_fp32_prepares_its_network_and_one_in_bf16_has_no_use_for_it() -> None:
    def is_prepared(precision: str) -> list[bool]:
        transfer = StyleTransfer(device="cpu", precision=precision)  # type: ignore[arg-type]
        layers = (one for one in transfer._trunk if isinstance(one, Convolution))
        return [one._kernels is not None for one in layers]

    assert sum(is_prepared("fp32")) >= 3 and not any(is_prepared("bf16"))


def test_a_prepared_network_gives_the_features_of_one_that_is_not() -> None:
    plain_trunk, fast = (load_trunk(COMPACT_PATH, "relu4_2", "max", "replicate") for _ in "ab")
    fast = prepare(fast, torch.device("cpu"), torch.float32)
    image = noise(1, 3, 128, 96)
    assert distance(fast(image), plain_trunk(image)) < 1e-5
    assert not torch.equal(fast(image), plain_trunk(image))
