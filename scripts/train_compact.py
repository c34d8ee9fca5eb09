"""Distil the compact network from VGG-16: the same topology, a quarter of the channels and fewer.

The student learns, at ten layers, to give the teacher's activations through a linear map (Wang et
al. 2020, *Collaborative Distillation*), and through the same map the teacher's Gram matrices. Part
of each batch are pastiches that the student itself is being optimised to at the time, so that what
an optimiser could exploit in it gets unlearned.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from compact_network import MEAN, STD, WIDTHS, Trunk, fit_heads, load_teacher, start_from
from PIL import Image
from rich.progress import Progress, TextColumn
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from nst_pipeline.digests import file_digest
from nst_pipeline.engine.graphs import captured

LOSS_LAYERS = ("1_1", "1_2", "2_1", "2_2", "3_1", "3_3", "4_1", "4_2", "4_3", "5_1")
STYLE_LAYERS = ("1_1", "2_1", "3_1", "4_1", "5_1")
CONTENT_LAYER = "4_2"
DECAY = 0.35
PASTICHES = 0.5
"""Their share of a batch."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
PAINTING_SIDE = 420
LOOK_EVERY = 10
"""Steps between two looks at the loss, for each of which a GPU is waited for."""
FITTED = 160
"""Pictures that the first weights are fitted to."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides the weights besides the pictures and the teacher.

    Attributes:
        steps: batches seen; the learning rate follows from them.
        seed: of every batch.
        widths: channels of conv1_1 .. conv5_1.
        batch: pictures in a batch.
        size: side of a picture in pixels, a multiple of 16.
        learning_rate: its peak, as a share of the root mean square of a layer's first weights.
        gram: weight of the Gram matrices' error beside the activations'.
        slots: pastiches that are being painted at any time.
        lifetime: iterations that each is painted for.
        pace: batches between two advances of the pastiches, and iterations of an advance.
        held_out: how many photographs, the last by name, only judge.
        start: SHA-256 of the weights that it went on from; empty: it began at the teacher's.
    """

    steps: int = 12_000
    seed: int = 0
    widths: tuple[int, ...] = WIDTHS
    batch: int = 8
    size: int = 128
    learning_rate: float = 0.006
    gram: float = 1.0
    slots: int = 8
    lifetime: int = 160
    pace: int = 8
    held_out: int = 40
    start: str = ""

    @property
    def pastiches(self) -> int:
        """How many pictures of a batch are pastiches."""
        return round(PASTICHES * self.batch)


@dataclass(frozen=True)
class Pictures:
    """The training set in memory: uint8 arrays (H, W, 3), and a digest over all files."""

    photographs: list[np.ndarray]
    held_out: list[np.ndarray]
    paintings: list[np.ndarray]
    digest: str


def load_pictures(photographs: Path, paintings: list[Path], held_out: int) -> Pictures:
    """Read a folder of photographs and some paintings, in the order of their names."""
    digest = hashlib.sha256()

    def read(path: Path) -> np.ndarray:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
        with Image.open(path) as image:
            picture = image.convert("RGB")
        if path in paintings:
            picture.thumbnail((PAINTING_SIDE, PAINTING_SIDE))
        return np.asarray(picture)

    files = sorted(p for p in photographs.iterdir() if p.suffix.lower() in SUFFIXES)
    if len(files) <= held_out:
        raise typer.BadParameter(f"{photographs}: {len(files)} pictures; {held_out} are held out")
    photos = [read(p) for p in files]
    return Pictures(
        photos[:-held_out], photos[-held_out:], [read(p) for p in paintings], digest.hexdigest()
    )


class Draw:
    """Random pictures of the training set, a function of the seed and a number alone."""

    def __init__(self, pictures: Pictures, size: int, *seeds: int) -> None:
        """Seed the draw."""
        self.pictures, self.size = pictures, size
        self.random = np.random.default_rng(seeds)

    def uniform(self, low: float, high: float) -> float:
        """Return a number between the two."""
        return float(self.random.uniform(low, high))

    def crop(self, pictures: list[np.ndarray], smallest: float) -> Tensor:
        """Return a scaled, perhaps mirrored square crop (1, 3, S, S) of one of the pictures."""
        picture = pictures[self.random.integers(len(pictures))]
        height, width = picture.shape[:2]
        side = int(self.uniform(smallest, 1.0) * min(height, width))
        y, x = self.random.integers(height - side + 1), self.random.integers(width - side + 1)
        part = torch.from_numpy(picture[y : y + side, x : x + side].copy())
        part = part.permute(2, 0, 1)[None].float() / 255
        part = F.interpolate(part, (self.size, self.size), mode="bilinear", antialias=True)
        return part.flip(3) if self.random.random() < 0.5 else part

    def photograph(self) -> Tensor:
        """Return a crop of a photograph."""
        return self.crop(self.pictures.photographs, 0.5)

    def style(self) -> Tensor:
        """Return a crop of a painting, or of a photograph for its texture, often recoloured."""
        if self.pictures.paintings and self.random.random() < 0.6:
            picture = self.crop(self.pictures.paintings, 0.3)
        else:
            picture = self.photograph()
        return self.recolour(picture) if self.random.random() < 0.6 else picture

    def recolour(self, picture: Tensor) -> Tensor:
        """Return the picture with other colours: the channels mixed, scaled and shifted."""
        mix = np.eye(3) + 0.25 * self.random.standard_normal((3, 3))
        mixed = torch.einsum("ij,bjhw->bihw", torch.from_numpy(mix).float(), picture)
        gain, shift = self.uniform(0.6, 1.4), self.uniform(-0.2, 0.2)
        return ((mixed - 0.5) * gain + 0.5 + shift).clamp(0, 1)

    def collage(self, one: Tensor, other: Tensor) -> Tensor:
        """Return both pictures (1, 3, S, S) in one, parted by random curves, soft or hard."""
        cells = int(self.random.integers(3, 10))
        noise = torch.from_numpy(self.random.standard_normal((1, 1, cells, cells))).float()
        field = F.interpolate(noise, (self.size, self.size), mode="bicubic")
        mask = torch.sigmoid(field * math.exp(self.uniform(0, 3)))
        return torch.lerp(other, one, mask)

    def clean(self) -> Tensor:
        """Return a picture that no optimiser has touched, sometimes of two, recoloured or noisy."""
        picture = self.style() if self.random.random() < 0.3 else self.photograph()
        if self.random.random() < 0.3:
            picture = self.collage(picture, self.photograph())
        if self.random.random() < 0.2:
            picture = self.recolour(picture)
        if self.random.random() < 0.3:
            level = self.uniform(0.01, 0.08)
            noise = self.random.standard_normal(picture.shape).astype(np.float32)
            picture = (picture + level * torch.from_numpy(noise)).clamp(0, 1)
        return picture


class CleanPictures(Dataset[Tensor]):
    """By the number of a batch: the pictures in it that no optimiser has touched."""

    def __init__(self, pictures: Pictures, settings: Settings) -> None:
        """Draw nothing yet."""
        self.pictures, self.settings = pictures, settings

    def __getitem__(self, step: int) -> Tensor:
        """Return images (B, 3, S, S) in [0, 1]."""
        settings = self.settings
        draw = Draw(self.pictures, settings.size, settings.seed, 1, step)
        return torch.cat([draw.clean() for _ in range(settings.batch - settings.pastiches)])


class Pastiches:
    """Pictures that are being painted with the student as it is, and those painted last.

    Every slot has its content, style, weights and length of step; a slot that has had its lifetime
    starts anew. The states after each advance are kept, the last 32 advances of them.
    """

    KEPT_ADVANCES = 32

    def __init__(self, settings: Settings, pictures: Pictures, student: Trunk) -> None:
        """Start every slot, at different ages."""
        self.settings, self.pictures, self.student = settings, pictures, student
        device = student.mean.device
        self.paint = captured(self._step, device)
        size, slots = settings.size, settings.slots
        shape = (slots, 3, size, size)
        self.content, self.style, self.x, self.mean, self.square = (
            torch.zeros(shape, device=device) for _ in range(5)
        )
        self.weights = torch.zeros(slots, 3, device=device)
        self.age = torch.zeros(slots, device=device)
        self.kept = torch.zeros(0, 3, size, size, device=device)
        with torch.no_grad():
            features = student(self.x)
            self.targets = {name: gram(features[name]) for name in STYLE_LAYERS}
            self.content_target = features[CONTENT_LAYER].float()
        self.advances = 0
        for slot in range(slots):
            self._start(slot)
            self.age[slot] = settings.lifetime * slot // slots

    def _start(self, slot: int) -> None:
        draw = Draw(self.pictures, self.settings.size, self.settings.seed, 2, self.advances, slot)
        self.content[slot : slot + 1], self.style[slot : slot + 1] = draw.photograph(), draw.style()
        start = draw.random.random()
        self.x[slot] = self.content[slot]
        if start < 0.1:
            self.x[slot] = torch.from_numpy(draw.random.random(self.x[slot].shape))
        elif start < 0.3:
            self.x[slot] = self.style[slot].flip(1)
        self.mean[slot], self.square[slot], self.age[slot] = 0, 0, 0
        style_weight = math.exp(draw.uniform(math.log(2), math.log(150)))
        variation = draw.random.choice([0.0, 0.02, 0.1]) * style_weight
        self.weights[slot] = torch.tensor([style_weight, variation, draw.uniform(0.01, 0.05)])

    def advance(self) -> None:
        """Paint on at every slot, and keep what came of it."""
        for slot, age in enumerate(self.age.tolist()):
            if age >= self.settings.lifetime:
                self._start(slot)
        self.student.requires_grad_(False)
        with torch.no_grad():
            features = self.student(self.style)
            for name, target in self.targets.items():
                target.copy_(gram(features[name]))
            self.content_target.copy_(self.student(self.content)[CONTENT_LAYER])
        for _ in range(self.settings.pace):
            self.paint()
        self.student.requires_grad_(True)
        limit = self.KEPT_ADVANCES * len(self.age)
        self.kept = torch.cat([self.kept, self.x])[-limit:]
        self.advances += 1

    def _step(self) -> None:
        x = self.x.clone().requires_grad_()
        features = self.student(x)
        loss = relative_error(features[CONTENT_LAYER].float(), self.content_target)
        style = sum(relative_error(gram(features[n]), g) for n, g in self.targets.items())
        variation = x.diff(dim=2).square().mean((1, 2, 3)) + x.diff(dim=3).square().mean((1, 2, 3))
        loss = loss + self.weights[:, 0] * style / 5 + self.weights[:, 1] * variation
        (gradient,) = torch.autograd.grad(loss.sum(), x)
        self.age += 1
        self.mean.lerp_(gradient, 0.1)
        self.square.lerp_(gradient.square(), 0.01)
        shape = (-1, 1, 1, 1)
        mean = self.mean / (1 - 0.9**self.age).view(shape)
        square = self.square / (1 - 0.99**self.age).view(shape)
        step = self.weights[:, 2].view(shape) * mean / (square.sqrt() + 1e-8)
        self.x.sub_(step).clamp_(0, 1)

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint needs."""
        names = ("content", "style", "x", "mean", "square", "weights", "age", "kept", "advances")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name, value in state.items():
            setattr(self, name, value)


def gram(features: Tensor) -> Tensor:
    """Return the Gram matrices (B, C, C) of features (B, C, H, W), divided by H * W, in float32."""
    with torch.autocast(features.device.type, enabled=False):
        flat = features.float().flatten(2)
        return flat @ flat.mT / flat.shape[2]


def relative_error(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return each sample's squared distance over the squared length of the second."""
    distance = (ours - theirs).square().flatten(1).sum(1)
    return distance / theirs.square().flatten(1).sum(1).clamp_min(1e-12)


class Training:
    """One training run: the student, its heads, its optimiser and the step it has reached."""

    def __init__(
        self,
        teacher: Trunk,
        pictures: Pictures,
        settings: Settings,
        device: str,
        student: Trunk | None = None,
    ) -> None:
        """Go on from a student, or fit its first weights to the teacher's channels."""
        torch.manual_seed(settings.seed)
        self.device = torch.device(device)
        self.teacher, self.pictures, self.settings = teacher.to(self.device), pictures, settings
        draw = Draw(pictures, settings.size, settings.seed, 0)
        some = torch.cat([draw.clean() for _ in range(FITTED)]).to(self.device)
        generator = torch.Generator().manual_seed(settings.seed)
        student = student or start_from(teacher, settings.widths, some, generator)
        self.student = student.to(self.device)
        heads = fit_heads(teacher, self.student, some, generator)
        self.heads = nn.ModuleDict()
        for name in LOSS_LAYERS:
            head = nn.Conv2d(heads[name].shape[1] - 1, heads[name].shape[0], 1)
            with torch.no_grad():
                head.weight.copy_(heads[name][:, :-1, None, None])
                head.bias.copy_(heads[name][:, -1])
            self.heads[name] = head
        with torch.no_grad():
            self.energy = {n: variance(f) for n, f in teacher(some).items()}
        self.heads.to(self.device)
        self.pastiches = Pastiches(settings, pictures, self.student)
        parameters = [*self.student.parameters(), *self.heads.parameters()]
        sizes = [p.detach().square().mean().sqrt().clamp_min(1e-3) for p in parameters]
        self.scales = torch.stack(sizes)
        self.rates = torch.zeros_like(self.scales)
        self.optimiser = torch.optim.Adam(
            [{"params": [p]} for p in parameters],
            betas=(0.9, 0.98),
            fused=True,
            capturable=self.device.type == "cuda",
        )
        self._follow_rates()
        self.images = torch.zeros(settings.batch, 3, settings.size, settings.size).to(self.device)
        self.loss = torch.zeros((), device=self.device)
        self.learn = captured(self._learn, self.device)
        self.step = 0

    def _follow_rates(self) -> None:
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate

    def rate(self) -> float:
        """Return the present learning rate: a short rise, a plateau, a straight line to zero.

        On the plateau it does not depend on the number of steps, which may then still be changed.
        """
        rise = (self.step + 1) / 50
        fall = (self.settings.steps - self.step) / max(1.0, DECAY * self.settings.steps)
        return self.settings.learning_rate * min(1.0, rise, fall)

    def advance(self, clean: Tensor) -> None:
        """Learn from this step's clean pictures and some pastiches."""
        torch.mul(self.scales, self.rate(), out=self.rates)
        if self.step % self.settings.pace == 0:
            with torch.autocast(self.device.type, torch.bfloat16):
                self.pastiches.advance()
        self.images.copy_(self.batch(clean))
        self.learn()
        self.step += 1

    def _learn(self) -> None:
        errors, grams = self.errors(self.images)
        loss = sum(errors.values()) + self.settings.gram * sum(grams.values())
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
        self.optimiser.step()
        self.loss.copy_(loss.detach())

    def batch(self, clean: Tensor) -> Tensor:
        """Return the pictures of this step: the clean ones, and pastiches."""
        settings, kept = self.settings, self.pastiches.kept
        random = np.random.default_rng((settings.seed, 3, self.step))
        which = torch.from_numpy(random.integers(len(kept), size=settings.pastiches))
        clean = clean.to(self.device, non_blocking=True)
        return torch.cat([clean, kept[which.to(self.device)]])

    def errors(self, pictures: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return each layer's error of the activations, and of the Gram matrices, both relative."""
        errors, grams = {}, {}
        with torch.autocast(self.device.type, torch.bfloat16):
            with torch.no_grad():
                theirs = self.teacher(pictures)
            ours = self.student(pictures)
            for name in LOSS_LAYERS:
                guess, truth = self.heads[name](ours[name]).float(), theirs[name].float()
                errors[name] = (guess - truth).square().sum(1).mean() / self.energy[name]
                if name in STYLE_LAYERS:
                    grams[name] = relative_error(gram(guess), gram(truth)).mean()
        return errors, grams

    @torch.no_grad()
    def judge(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield the figures of the held-out photographs and of the pastiches kept last."""
        side = self.settings.size
        photos = [torch.from_numpy(p[:side, :side].copy()) for p in self.pictures.held_out]
        held_out = torch.stack(photos).permute(0, 3, 1, 2).float() / 255
        for name, pictures in (("held out", held_out), ("pastiches", self.pastiches.kept[-24:])):
            if len(pictures):
                yield name, figures(*self.errors(pictures.to(self.device)))

    def identity(self) -> dict[str, Any]:
        """Return what a checkpoint must share with the run that resumes from it."""
        return {"settings": asdict(self.settings), "pictures": self.pictures.digest}

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file at `path` is whole at every moment."""
        state = {
            "identity": self.identity(),
            "step": self.step,
            "student": self.student.state_dict(),
            "heads": self.heads.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "pastiches": self.pastiches.state(),
        }
        part = path.with_name(path.name + ".part")
        torch.save(state, part)
        part.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same settings and pictures."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        theirs, ours = state["identity"], self.identity()
        plateau = (1 - DECAY) * min(theirs["settings"]["steps"], ours["settings"]["steps"])
        if state["step"] <= plateau:
            theirs["settings"]["steps"] = ours["settings"]["steps"]
        if theirs != ours:
            raise typer.BadParameter(f"{path}: made with other settings or pictures")
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        self.heads.load_state_dict(state["heads"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._follow_rates()
        self.pastiches.restore(state["pastiches"])


def variance(features: Tensor) -> float:
    """Return the variance of features (B, C, H, W) over all places, summed over the channels."""
    return float(features.transpose(0, 1).flatten(1).var(1).sum())


def figures(errors: dict[str, Tensor], grams: dict[str, Tensor]) -> dict[str, float]:
    """Return the errors as numbers with names."""
    named = {f"relu{n}": float(e.detach()) for n, e in errors.items()}
    named |= {f"gram{n}": float(e.detach()) for n, e in grams.items()}
    return {"loss": sum(named.values()), **named}


def program_version() -> str:
    """Return the installed version of nst-pipeline, or `unknown`."""
    try:
        return metadata.version("nst-pipeline")
    except metadata.PackageNotFoundError:
        return "unknown"


def write_weights(training: Training, path: Path) -> None:
    """Write the student with the facts of its making, replacing `path` in one move."""
    settings = training.settings
    facts = {
        "topology": "vgg16 to relu5_1, max pooling",
        "teacher": "VGG-16 as trained on ImageNet by K. Simonyan and A. Zisserman, CC BY 4.0",
        "channels": ",".join(map(str, settings.widths)),
        "mean": ",".join(map(str, MEAN)),
        "std": ",".join(map(str, STD)),
        "photographs": str(len(training.pictures.photographs)),
        "paintings": str(len(training.pictures.paintings)),
        "pictures_sha256": training.pictures.digest,
        "settings": json.dumps(asdict(settings)),
        "steps": str(training.step),
        "date": datetime.now(UTC).date().isoformat(),
        "program": f"nst-pipeline {program_version()}",
        "torch": torch.__version__,
    }
    part = path.with_name(path.name + ".part")
    tensors = {k: v.half() for k, v in training.student.weights().items()}
    save_file(tensors, part, metadata=facts)
    part.replace(path)


def clean_batches(training: Training, workers: int) -> DataLoader[Tensor]:
    """Return the clean pictures of the steps that are left, drawn ahead by so many processes."""
    return DataLoader(
        CleanPictures(training.pictures, training.settings),
        batch_size=None,
        sampler=range(training.step, training.settings.steps),
        num_workers=workers,
        pin_memory=training.device.type == "cuda",
    )


def train(training: Training, output: Path, save_every: int, workers: int) -> None:
    """Run to the last step, with a checkpoint and a log of the errors beside `output`."""
    checkpoint, log = output.with_suffix(".checkpoint"), output.with_suffix(".log.jsonl")
    started = time.monotonic()
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[last]}"))
    with Progress(*columns) as progress, log.open("a", encoding="utf-8") as lines:
        task = progress.add_task("steps", total=training.settings.steps, last="")
        for clean in clean_batches(training, workers):
            training.advance(clean)
            progress.update(task, completed=training.step)
            if training.step % LOOK_EVERY == 0:
                progress.update(task, last=f"loss {float(training.loss):.3f}")
            if training.step % save_every == 0 or training.step == training.settings.steps:
                for name, judged in training.judge():
                    seconds = round(time.monotonic() - started, 1)
                    entry = {"step": training.step, "seconds": seconds, "of": name}
                    rounded = {k: round(v, 5) for k, v in judged.items()}
                    lines.write(json.dumps(entry | rounded) + "\n")
                lines.flush()
                training.save(checkpoint)
                write_weights(training, output)


def main(
    teacher: Annotated[Path, typer.Argument(help="VGG-16's convolutions, as .safetensors.")],
    photographs: Annotated[Path, typer.Argument(help="Folder of photographs.")],
    output: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    painting: Annotated[list[Path] | None, typer.Option(help="A painting; repeatable.")] = None,
    steps: int = Settings.steps,
    seed: int = Settings.seed,
    widths: Annotated[str, typer.Option(help="Channels of conv1_1 .. conv5_1.")] = "",
    batch: int = Settings.batch,
    size: int = Settings.size,
    learning_rate: float = Settings.learning_rate,
    gram: float = Settings.gram,
    slots: int = Settings.slots,
    lifetime: int = Settings.lifetime,
    pace: int = Settings.pace,
    held_out: int = Settings.held_out,
    start: Annotated[
        Path | None, typer.Option(help="Weights of an earlier run to go on from, of any settings.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint.")] = False,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 200,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for all.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that draw pictures ahead.")] = 0,
    device: str = "cpu",
) -> None:
    """Distil the compact network from VGG-16 and write its weights."""
    if threads:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = True  # as the convolutions; for the Gram matrices
    student = load_teacher(start).requires_grad_(True) if start else None
    chosen = tuple(int(w) for w in widths.split(",")) if widths else WIDTHS
    settings = Settings(
        steps=steps,
        seed=seed,
        widths=student.widths() if student else chosen,
        batch=batch,
        size=size,
        learning_rate=learning_rate,
        gram=gram,
        slots=slots,
        lifetime=lifetime,
        pace=pace,
        held_out=held_out,
        start=file_digest(start) if start else "",
    )
    pictures = load_pictures(photographs, painting or [], held_out)
    training = Training(load_teacher(teacher), pictures, settings, device, student)
    checkpoint = output.with_suffix(".checkpoint")
    if resume and checkpoint.exists():
        training.resume(checkpoint)
    train(training, output, save_every, workers)
    typer.echo(f"{output}: {output.stat().st_size:,} bytes after {training.step} steps")


if __name__ == "__main__":
    typer.run(main)
