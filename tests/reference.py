"""The recipe as the PyTorch tutorial "Neural Transfer Using PyTorch" has it, in plain fp32.

Nothing of the package is used, so that its engine has something independent to agree with.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

CONTENT_LAYERS = ("conv_4",)
STYLE_LAYERS = ("conv_1", "conv_2", "conv_3", "conv_4", "conv_5")


class ContentLoss(nn.Module):
    def __init__(self, target: Tensor) -> None:
        super().__init__()
        self.target = target.detach()

    def forward(self, x: Tensor) -> Tensor:
        self.loss = F.mse_loss(x, self.target)
        return x


def gram_matrix(x: Tensor) -> Tensor:
    a, b, c, d = x.size()
    features = x.view(a * b, c * d)
    return torch.mm(features, features.t()).div(a * b * c * d)


class StyleLoss(nn.Module):
    def __init__(self, target_feature: Tensor) -> None:
        super().__init__()
        self.target = gram_matrix(target_feature).detach()

    def forward(self, x: Tensor) -> Tensor:
        self.loss = F.mse_loss(gram_matrix(x), self.target)
        return x


class Normalization(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.tensor([0.485, 0.456, 0.406]).view(-1, 1, 1)
        self.std = torch.tensor([0.229, 0.224, 0.225]).view(-1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


def load_vgg(path: Path, pool: Callable[[], nn.Module]) -> nn.Sequential:
    """Return the first three blocks from a file with the layers' paper names."""
    state = load_file(path)
    layers: list[nn.Module] = []
    for block in (1, 2, 3):
        for i in itertools.count(1):
            if f"conv{block}_{i}.weight" not in state:
                break
            weight = state[f"conv{block}_{i}.weight"].float()
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            conv.weight.data.copy_(weight)
            conv.bias.data.copy_(state[f"conv{block}_{i}.bias"].float())
            layers += [conv, nn.ReLU()]
        layers.append(pool())
    return nn.Sequential(*layers).eval()


def build(
    cnn: nn.Sequential, style: Tensor, content: Tensor
) -> tuple[nn.Sequential, list[StyleLoss], list[ContentLoss]]:
    """Walk the network, insert the losses, and cut after the last of them."""
    content_losses, style_losses = [], []
    model = nn.Sequential(Normalization())
    i = 0
    for layer in cnn.children():
        if isinstance(layer, nn.Conv2d):
            i += 1
            name = f"conv_{i}"
        else:
            name = f"{type(layer).__name__}_{i}"
        model.add_module(name, layer)
        if name in CONTENT_LAYERS:
            content_loss = ContentLoss(model(content).detach())
            model.add_module(f"content_loss_{i}", content_loss)
            content_losses.append(content_loss)
        if name in STYLE_LAYERS:
            style_loss = StyleLoss(model(style).detach())
            model.add_module(f"style_loss_{i}", style_loss)
            style_losses.append(style_loss)
    last = max(i for i, layer in enumerate(model) if isinstance(layer, ContentLoss | StyleLoss))
    return model[: last + 1], style_losses, content_losses


class Reference:
    """The tutorial's losses of one content and style."""

    def __init__(
        self,
        cnn: nn.Sequential,
        content: Tensor,
        style: Tensor,
        style_weight: float = 1e6,
        content_weight: float = 1.0,
    ) -> None:
        self.model, self.style_losses, self.content_losses = build(cnn, style, content)
        self.weights = style_weight, content_weight

    def loss(self, image: Tensor) -> Tensor:
        self.model(image)
        style_score = sum(sl.loss for sl in self.style_losses) * self.weights[0]
        content_score = sum(cl.loss for cl in self.content_losses) * self.weights[1]
        return style_score + content_score

    def run(self, image: Tensor, num_steps: int = 300, frozen: bool = True) -> Tensor:
        image = image.clone().requires_grad_(True)
        self.model.eval()
        if frozen:
            self.model.requires_grad_(False)
        optimizer = torch.optim.LBFGS([image])
        run = 0

        def closure() -> Tensor:
            nonlocal run
            with torch.no_grad():
                image.clamp_(0, 1)
            optimizer.zero_grad()
            loss = self.loss(image)
            loss.backward()
            run += 1
            return loss

        while run <= num_steps:
            optimizer.step(closure)
        with torch.no_grad():
            image.clamp_(0, 1)
        return image.detach()
