"""Train the compact network: VGG-19's topology, narrow, on a folder of photographs.

Every photograph is a class of its own. The network sees crops of the photographs, or mosaics of
four crops, and each quarter of the picture must name its photograph at three depths. The input
carries noise and, on the second pass over a batch, a step against the network's own gradient, so
that fine grain means nothing to the features; linear decoders must give the clean picture back, so
that colour and shape stay in them. Batch norm is folded away in the file that is written.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from compact_network import MEAN, NAMES, STD, WIDTHS, CompactNetwork, fold, normalise, start_from
from PIL import Image
from rich.progress import Progress, TextColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CLASSIFIED = ("3_4", "4_4", "5_1")
DECODED = {"3_1": 4, "4_1": 8, "5_1": 16}
PHOTO_SIDE = 192
DECAY = 0.35
HEADS_PACE = 3.0
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class Settings:
    """Everything that decides the weights besides the photographs.

    Attributes:
        steps: batches seen; the learning rate follows from them.
        seed: of the initial weights and of every batch.
        widths: channels of conv1_1 .. conv5_1.
        batch: pictures in a batch.
        size: side of a picture in pixels, a multiple of 32.
        learning_rate: its peak.
        mosaics: share of the batch that is made of four crops.
        noise: largest standard deviation of the input's noise, in [0, 1] colour units.
        adversarial: root mean square of the step against the gradient, same units; 0 for none.
        denoising: weight of the decoders' squared error beside the cross entropy.
        init: digest of the weights started from, or an empty string.
    """

    steps: int = 3000
    seed: int = 0
    widths: tuple[int, ...] = WIDTHS
    batch: int = 32
    size: int = 96
    learning_rate: float = 1e-3
    mosaics: float = 0.5
    noise: float = 0.08
    adversarial: float = 0.012
    denoising: float = 1.0
    init: str = ""


class Heads(nn.Module):
    """The pretext tasks: name the photograph of each quarter, and give the clean picture back."""

    def __init__(self, widths: tuple[int, ...], photos: int) -> None:
        """Make one classifier and one decoder for each of the layers that have them."""
        super().__init__()
        width = dict(zip(NAMES, widths, strict=True))
        self.classifiers = nn.ModuleDict(
            {
                n: nn.Sequential(
                    nn.BatchNorm1d(width[n], affine=False), nn.Linear(width[n], photos)
                )
                for n in CLASSIFIED
            }
        )
        self.decoders = nn.ModuleDict(
            {n: nn.Conv2d(width[n], 3 * k * k, 1) for n, k in DECODED.items()}
        )

    def forward(
        self, features: dict[str, Tensor], labels: Tensor, clean: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the cross entropy, the squared error and the share of quarters named rightly.

        Args:
            features: the network's outputs.
            labels: the photograph of each quarter, (B, 4).
            clean: the normalised pictures without noise, (B, 3, H, W).
        """
        entropy, error = clean.new_zeros(()), clean.new_zeros(())
        votes: Tensor | float = 0.0
        for name, classifier in self.classifiers.items():
            pooled = F.adaptive_avg_pool2d(features[name].float(), 2).flatten(2)
            logits = classifier(pooled.transpose(1, 2).flatten(0, 1)).float()
            entropy = entropy + F.cross_entropy(logits, labels.flatten(), label_smoothing=0.05)
            votes = votes + logits.detach().softmax(1)
        for name, decoder in self.decoders.items():
            picture = F.pixel_shuffle(decoder(features[name]).float(), DECODED[name])
            error = error + (picture - clean).square().mean()
        right = (votes.argmax(1) == labels.flatten()).float().mean()
        return entropy / len(CLASSIFIED), error / len(DECODED), right


@dataclass(frozen=True)
class Photographs:
    """The training set in memory.

    Attributes:
        pixels: (N, 3, PHOTO_SIDE, PHOTO_SIDE) uint8, each photograph squeezed into a square.
        halves: the same at half the side, for crops that shrink the picture.
        aspects: (N,) width over height before that.
        digest: SHA-256 over the digests of the files, in the order of their names.
    """

    pixels: Tensor
    halves: Tensor
    aspects: Tensor
    digest: str

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.pixels)


def load_photographs(folder: Path) -> Photographs:
    """Read every picture of a folder, in the order of their names."""
    pixels, aspects, digest = [], [], hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
        with Image.open(path) as image:
            aspects.append(image.width / image.height)
            square = image.convert("RGB").resize((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
        pixels.append(torch.from_numpy(np.array(square)).permute(2, 0, 1))
    if len(pixels) < 2:
        raise typer.BadParameter(f"{folder}: {len(pixels)} pictures; at least 2 are needed")
    whole = torch.stack(pixels)
    halves = torch.cat([F.avg_pool2d(part.float(), 2).byte() for part in whole.split(64)])
    return Photographs(whole, halves, torch.tensor(aspects), digest.hexdigest())


def crops(photos: Photographs, which: Tensor, size: int, g: torch.Generator) -> Tensor:
    """Return one turned, scaled and perhaps mirrored square crop of each photograph in `which`."""
    n = len(which)
    angle = torch.rand(n, generator=g) - 0.5
    extent = 0.4 * (1.15 / 0.4) ** torch.rand(n, generator=g)
    extent = extent * min(1.0, size / 96) ** 0.5
    flip = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    aspect = photos.aspects[which]
    half = torch.stack([extent * (1 / aspect).clamp(max=1), extent * aspect.clamp(max=1)], 1)
    shift = (torch.rand(n, 2, generator=g) * 2 - 1) * (1 - half).clamp(min=0)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos * flip, -sin], 1), torch.stack([sin * flip, cos], 1)], 1)
    theta = torch.cat([half[:, :, None] * turn, shift[:, :, None]], 2)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    coarse = extent * PHOTO_SIDE > 1.5 * size
    out = torch.empty(n, 3, size, size)
    for pixels, mask in ((photos.pixels, ~coarse), (photos.halves, coarse)):
        source = pixels[which[mask]].float() / 255
        out[mask] = F.grid_sample(
            source, grid[mask], padding_mode="reflection", align_corners=False
        )
    return out


def recolour(x: Tensor, g: torch.Generator) -> Tensor:
    """Return images with slightly different brightness, contrast and colours.

    Gently: features that have learned to ignore colour cannot paint with it.
    """
    n = len(x)
    brightness = 0.85 + 0.3 * torch.rand(n, 1, 1, 1, generator=g)
    contrast = 0.8 + 0.4 * torch.rand(n, 1, 1, 1, generator=g)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * contrast + mean * brightness
    mix = torch.eye(3) + 0.03 * torch.randn(n, 3, 3, generator=g)
    return torch.einsum("bij,bjhw->bihw", mix, x).clamp(0, 1)


def make_batch(photos: Photographs, settings: Settings, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the batch of one step, a function of the seed and the step alone.

    Returns:
        Clean pictures (B, 3, S, S) in [0, 1], their noise, and each quarter's photograph (B, 4).
    """
    g = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    size, mosaics = settings.size, round(settings.batch * settings.mosaics)
    whole = torch.randint(len(photos), (settings.batch - mosaics,), generator=g)
    parts = torch.randint(len(photos), (mosaics * 4,), generator=g)
    quarters = recolour(crops(photos, parts, size // 2, g), g)
    quarters = quarters.view(mosaics, 2, 2, 3, size // 2, size // 2)
    tiled = quarters.permute(0, 3, 1, 4, 2, 5).reshape(mosaics, 3, size, size)
    clean = torch.cat([recolour(crops(photos, whole, size, g), g), tiled])
    labels = torch.cat([whole[:, None].expand(-1, 4), parts.view(mosaics, 4)])
    level = settings.noise * torch.rand(settings.batch, 1, 1, 1, generator=g) ** 2
    return clean, level * torch.randn(clean.shape, generator=g), labels


class Training:
    """One training run: the network, its heads, its optimiser and the step it has reached."""

    def __init__(
        self, photos: Photographs, settings: Settings, device: str, init: dict[str, Tensor] | None
    ) -> None:
        """Build everything from the seed, or from the weights to start from."""
        torch.manual_seed(settings.seed)
        self.photos, self.settings, self.device = photos, settings, torch.device(device)
        self.network = CompactNetwork(settings.widths)
        self.heads = Heads(settings.widths, len(photos))
        if init:
            some = [make_batch(photos, settings, -1 - i)[0] for i in range(4)]
            start_from(self.network, init, normalise(torch.cat(some)))
        self.network.to(self.device, memory_format=torch.channels_last)
        self.heads.to(self.device)
        groups = [
            {"params": list(self.network.parameters()), "pace": 1.0},
            {"params": list(self.heads.parameters()), "pace": HEADS_PACE},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, weight_decay=1e-4)
        self.step = 0

    def rate(self) -> float:
        """Return the present learning rate: a short rise, a plateau, a straight line to zero.

        On the plateau it does not depend on the number of steps, which may then still be changed.
        """
        steps, peak = self.settings.steps, self.settings.learning_rate
        rise = (self.step + 1) / 150
        fall = (steps - self.step) / max(1.0, DECAY * steps)
        return peak * min(1.0, rise, fall)

    def advance(self) -> dict[str, float]:
        """Learn from one batch, twice if there is an adversarial step, and return its figures."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate() * group["pace"]
        clean, noise, labels = (
            t.to(self.device) for t in make_batch(self.photos, self.settings, self.step)
        )
        figures, gradient = self._learn(clean, noise, labels)
        if self.settings.adversarial:
            size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
            attack = self.settings.adversarial * gradient / size
            attacked, _ = self._learn(clean, noise + attack, labels)
            figures["attacked"] = attacked["right"]
        self.step += 1
        return figures

    def _learn(
        self, clean: Tensor, noise: Tensor, labels: Tensor
    ) -> tuple[dict[str, float], Tensor]:
        pictures = (clean + noise).requires_grad_(self.settings.adversarial > 0)
        with torch.autocast(self.device.type, torch.bfloat16):
            x = normalise(pictures).contiguous(memory_format=torch.channels_last)
            entropy, error, right = self.heads(self.network(x), labels, normalise(clean))
        loss = entropy + self.settings.denoising * error
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        figures = {"loss": loss, "entropy": entropy, "error": error, "right": right}
        gradient = pictures.grad if pictures.grad is not None else torch.zeros_like(pictures)
        return {k: float(v.detach()) for k, v in figures.items()}, gradient

    def identity(self) -> dict[str, Any]:
        """Return what a checkpoint must share with the run that resumes from it."""
        return {"settings": asdict(self.settings), "photographs": self.photos.digest}

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file at `path` is whole at every moment."""
        state = {
            "identity": self.identity(),
            "step": self.step,
            "network": self.network.state_dict(),
            "heads": self.heads.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        part = path.with_name(path.name + ".part")
        torch.save(state, part)
        part.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same settings and photographs."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        theirs, ours = state["identity"], self.identity()
        plateau = (1 - DECAY) * min(theirs["settings"]["steps"], ours["settings"]["steps"])
        if state["step"] <= plateau:
            theirs["settings"]["steps"] = ours["settings"]["steps"]
        if theirs != ours:
            raise typer.BadParameter(f"{path}: made with other settings or photographs")
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.heads.load_state_dict(state["heads"])
        self.optimiser.load_state_dict(state["optimiser"])


def program_version() -> str:
    """Return the installed version of nst-pipeline, or `unknown`."""
    try:
        return metadata.version("nst-pipeline")
    except metadata.PackageNotFoundError:
        return "unknown"


def write_weights(training: Training, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the folded weights with the facts of their making, replacing `path` in one move."""
    facts = {
        "topology": "vgg19 to relu5_1, average pooling, zero padding, batch norm folded",
        "channels": ",".join(map(str, training.settings.widths)),
        "mean": ",".join(map(str, MEAN)),
        "std": ",".join(map(str, STD)),
        "photographs": str(len(training.photos)),
        "photographs_sha256": training.photos.digest,
        "steps": str(training.step),
        "seed": str(training.settings.seed),
        "init_sha256": training.settings.init,
        "settings": json.dumps(asdict(training.settings)),
        "date": datetime.now(UTC).date().isoformat(),
        "program": f"nst-pipeline {program_version()}",
        "torch": torch.__version__,
    }
    tensors = {k: v.to(dtype) for k, v in fold(training.network).items()}
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, metadata=facts)
    part.replace(path)


def train(training: Training, output: Path, save_every: int) -> None:
    """Run to the last step, with a checkpoint and a log of the loss beside `output`."""
    checkpoint, log = output.with_suffix(".checkpoint"), output.with_suffix(".log.jsonl")
    started = time.monotonic()
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[last]}"))
    with Progress(*columns) as progress, log.open("a", encoding="utf-8") as lines:
        task = progress.add_task("steps", total=training.settings.steps, last="")
        while training.step < training.settings.steps:
            figures = training.advance()
            last = f"loss {figures['loss']:.3f} right {figures['right']:.2f}"
            progress.update(task, completed=training.step, last=last)
            if training.step % 20 == 0 or training.step == training.settings.steps:
                seconds = round(time.monotonic() - started, 1)
                lines.write(
                    json.dumps({"step": training.step, "seconds": seconds, **figures}) + "\n"
                )
                lines.flush()
            if training.step % save_every == 0:
                training.save(checkpoint)
    training.save(checkpoint)
    write_weights(training, output)


def main(
    photographs: Annotated[Path, typer.Argument(help="Folder of photographs.")],
    output: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    steps: int = Settings.steps,
    seed: int = Settings.seed,
    widths: Annotated[str, typer.Option(help="Channels of conv1_1 .. conv5_1.")] = "",
    batch: int = Settings.batch,
    size: int = Settings.size,
    learning_rate: float = Settings.learning_rate,
    mosaics: float = Settings.mosaics,
    noise: float = Settings.noise,
    adversarial: float = Settings.adversarial,
    denoising: float = Settings.denoising,
    init: Annotated[Path | None, typer.Option(help="Folded weights to start from.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint.")] = False,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 200,
    device: str = "cpu",
) -> None:
    """Train the compact network on a folder of photographs and write its weights."""
    settings = Settings(
        steps=steps,
        seed=seed,
        widths=tuple(int(w) for w in widths.split(",")) if widths else WIDTHS,
        batch=batch,
        size=size,
        learning_rate=learning_rate,
        mosaics=mosaics,
        noise=noise,
        adversarial=adversarial,
        denoising=denoising,
        init=hashlib.sha256(init.read_bytes()).hexdigest() if init else "",
    )
    training = Training(
        load_photographs(photographs), settings, device, load_file(init) if init else None
    )
    checkpoint = output.with_suffix(".checkpoint")
    if resume and checkpoint.exists():
        training.resume(checkpoint)
    train(training, output, save_every)
    typer.echo(f"{output}: {output.stat().st_size:,} bytes after {training.step} steps")


if __name__ == "__main__":
    typer.run(main)
