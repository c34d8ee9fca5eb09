"""StyleTransfer: a content and its styles in, pastiches out."""

import contextlib
import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image
from torch import Tensor, nn

from nst_pipeline.engine import images, vgg
from nst_pipeline.engine.lbfgs import Minimum, minimise
from nst_pipeline.engine.losses import (
    LossModel,
    build_model,
    extract,
    gram_matrix,
    total_variation,
)
from nst_pipeline.engine.targets import TargetCache, Targets
from nst_pipeline.errors import DeviceLostError, ShapeError, UnavailableError
from nst_pipeline.recipe import Recipe, digest, make_recipe
from nst_pipeline.weights import Weights, resolve

Precision = Literal["auto", "fp32", "bf16"]

LONGEST_STEP = 0.1
"""Root mean square change of the pixels in a step; good steps are shorter."""

OnStep = Callable[[int, int, float], None]
"""Takes the style's index, the steps done, and the best loss so far."""


@dataclass(frozen=True)
class Losses:
    """The weighted terms of a loss, and their sum."""

    content: float
    style: float
    tv: float
    total: float


@dataclass(frozen=True)
class Result:
    """A finished pastiche.

    Attributes:
        pastiche: 8-bit RGB, the very pixels that the losses at the end are of.
        start: losses of the image that the optimisation began with.
        end: losses of ``pastiche``.
        iterations: steps done.
        seconds: wall time, shared evenly among the styles of a batch.
        stop_reason: ``iterations``, ``converged`` or ``diverged``.
        history_size: steps that L-BFGS remembered; fewer than the recipe's where memory did not
            suffice.
    """

    pastiche: Image.Image
    start: Losses
    end: Losses
    iterations: int
    seconds: float
    stop_reason: str
    history_size: int


class StyleTransfer:
    """Paints contents by one recipe (Gatys, Ecker and Bethge 2016).

    Attributes:
        recipe: what decides the pixels.
        device: where it runs.
        dtype: what the network runs in; images, Gram matrices and losses are float32.
        weights: the network's weights.
        targets: the cache of style targets.
        batch: styles painted together; halved when the device's memory does not suffice.
        history_size: steps that L-BFGS remembers; halved when that does not suffice either.
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        weights: str | Weights = "auto",
        targets: TargetCache | None = None,
        batch: int | None = None,
    ) -> None:
        """Load the network.

        Args:
            recipe: see `recipe.make_recipe`; None: the default of the network.
            device: ``auto`` (CUDA when there is one), ``cpu``, ``cuda`` or ``cuda:N``.
            precision: of the network; ``auto`` is bf16 where the device is fast at it.
            weights: as `weights.resolve` takes or gives them.
            targets: cache of style targets, to share among several instances.
            batch: styles painted together; default 1 on a CPU and 8 on CUDA.

        Raises:
            UnavailableError: no such device or weights.
        """
        self.device = resolve_device(device)
        self.dtype = resolve_precision(precision, self.device)
        self.weights = weights if isinstance(weights, Weights) else resolve(weights)
        self.recipe = recipe = recipe or make_recipe(self.weights.id)
        self.targets = TargetCache() if targets is None else targets
        self.batch = batch or (8 if self.device.type == "cuda" else 1)
        self.history_size = recipe.history_size
        last = vgg.deepest((*recipe.content_layers, *recipe.style_layers))
        self._trunk = _trunk(self.weights, last, recipe.pooling, self.device, self.dtype)

    def run(
        self,
        content: Image.Image | Tensor,
        styles: Sequence[Image.Image | Tensor],
        on_step: OnStep | None = None,
        start: Image.Image | Tensor | None = None,
        check: Callable[[], None] | None = None,
    ) -> list[Result]:
        """Paint ``content`` in each of ``styles``.

        Where memory does not suffice, fewer styles are painted together, and then L-BFGS
        remembers fewer steps.

        Args:
            content: an image, scaled to the recipe's size, or a (1, 3, H, W) tensor in [0, 1],
                taken as it is.
            styles: likewise.
            on_step: told of the progress, every ten steps.
            start: what the pastiche starts as, in place of what the recipe's ``init`` says;
                scaled to the content's size.
            check: called before each step; whatever it raises ends the run.

        Returns:
            One result a style, in order.

        Raises:
            ShapeError: a tensor of another shape.
            DeviceLostError: the device broke; only a new process can use it again.
        """
        with _deterministic(self.device), _broken_device_told(self.device):
            target = self._pixels(content)
            features = extract(self._trunk, target, set(self.recipe.content_layers))
            grams = [self._style_targets(self._pixels(style)) for style in styles]
            first = self._start(target, start)
            results: list[Result] = []
            while len(results) < len(styles):
                part = grams[len(results) : len(results) + self.batch]
                report = _shifted(on_step, len(results))
                try:
                    results += self._paint(features, part, first, report, check)
                except (RuntimeError, MemoryError) as error:
                    self._make_room(error, len(part))
            return results

    def _make_room(self, error: RuntimeError | MemoryError, batch: int) -> None:
        """Ask for less memory from now on; raise ``error`` if it is about something else."""
        if not is_out_of_memory(error):
            raise error
        if batch > 1:
            self.batch = batch // 2
        elif self.history_size > 1:
            self.history_size //= 2
        else:
            raise error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def describe(self) -> tuple[str, str]:
        """Return the device's name and the network's precision, for people."""
        return describe_device(self.device), describe_precision(self.dtype)

    def memory_bytes(self) -> int | None:
        """Return the bytes of the device's memory in use by this process; None for a CPU."""
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else None

    def _pixels(self, image: Image.Image | Tensor) -> Tensor:
        if isinstance(image, Image.Image):
            image = images.to_tensor(images.fit(image, self.recipe.size))
        if image.dim() != 4 or image.shape[:2] != (1, 3):
            raise ShapeError(f"StyleTransfer: takes (1, 3, H, W), not {tuple(image.shape)}")
        return image.to(self.device, torch.float32)

    def _start(self, content: Tensor, start: Image.Image | Tensor | None) -> Tensor:
        if isinstance(start, Image.Image):
            height, width = content.shape[-2:]
            start = images.to_tensor(start.resize((width, height), Image.Resampling.BICUBIC))
        if start is not None:
            return start.to(content)
        if self.recipe.init == "content":
            return content.clone()
        generator = torch.Generator().manual_seed(self.recipe.seed)
        return torch.rand(content.shape, generator=generator).to(content)

    @torch.no_grad()
    def _style_targets(self, style: Tensor) -> Targets:
        pixels = hashlib.sha256(style.cpu().numpy().tobytes()).hexdigest()
        layers = sorted(self.recipe.style_layers)
        facts = [pixels, list(style.shape), layers, self.recipe.pooling, self.weights.sha256]
        key = digest([*facts, "gram", str(self.dtype)])

        def compute() -> Targets:
            features = extract(self._trunk, style, set(layers))
            return {layer: gram_matrix(values) for layer, values in features.items()}

        return self.targets.get(key, self.device, compute)

    def _paint(
        self,
        features: dict[str, Tensor],
        grams: list[Targets],
        first: Tensor,
        on_step: Callable[[int, list[float]], None],
        check: Callable[[], None] | None,
    ) -> list[Result]:
        begun = time.perf_counter()
        model = build_model(
            self._trunk,
            features,
            {layer: torch.cat([g[layer] for g in grams]) for layer in self.recipe.style_layers},
            self.recipe.content_layers,
            self.recipe.style_layers,
            self.recipe.balanced,
        )
        batch = first.expand(len(grams), -1, -1, -1).clone()
        before = self._losses(model, batch)

        def objective(pixels: Tensor) -> tuple[Tensor, Tensor]:
            if check:
                check()
            return self._loss_and_gradient(model, pixels)

        found = minimise(
            objective,
            batch,
            self.recipe.iterations,
            self.history_size,
            project=lambda pixels: pixels.clamp(0, 1),
            radius=LONGEST_STEP,
            on_step=on_step,
        )
        return self._results(model, found, before, begun)

    def _results(
        self, model: LossModel, found: Minimum, before: list[Losses], begun: float
    ) -> list[Result]:
        pastiches = [images.to_image(pixels) for pixels in found.point]
        saved = torch.cat([images.to_tensor(pastiche) for pastiche in pastiches])
        after = self._losses(model, saved.to(self.device))
        seconds = (time.perf_counter() - begun) / len(pastiches)
        return [
            Result(pastiche, start, end, found.iterations, seconds, reason, self.history_size)
            for pastiche, start, end, reason in zip(
                pastiches, before, after, found.stop_reasons, strict=True
            )
        ]

    def _terms(self, model: LossModel, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        content, style = model(pixels.contiguous(memory_format=torch.channels_last))
        recipe = self.recipe
        tv = total_variation(pixels) if recipe.tv_weight else torch.zeros_like(style)
        return content * recipe.content_weight, style * recipe.style_weight, tv * recipe.tv_weight

    def _loss_and_gradient(self, model: LossModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
        pixels = pixels.detach().requires_grad_()
        losses = torch.stack(self._terms(model, pixels)).sum(0)
        (gradient,) = torch.autograd.grad(losses.sum(), pixels)
        return losses, gradient

    @torch.no_grad()
    def _losses(self, model: LossModel, pixels: Tensor) -> list[Losses]:
        terms = torch.stack(self._terms(model, pixels))
        rows = torch.cat([terms, terms.sum(0, keepdim=True)]).T.tolist()
        return [Losses(*row) for row in rows]


def resolve_device(name: str) -> torch.device:
    """Return the device that ``name`` means; ``auto`` is CUDA when there is one.

    Raises:
        UnavailableError: CUDA is asked for and not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            f"device: {name}: this machine has {torch.cuda.device_count()} CUDA devices that "
            "torch can use; give auto or cpu"
        )
    return device


def describe_device(device: torch.device) -> str:
    """Return a device's name, for people."""
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    model = torch.cpu.get_capabilities().get("cpu_name", "unknown model")
    return f"cpu: {model}, {torch.get_num_threads()} threads"


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """Return what the network runs in: for ``auto``, bf16 where ``device`` is fast at it."""
    if name != "auto":
        return torch.bfloat16 if name == "bf16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    return torch.bfloat16 if fast else torch.float32


def describe_precision(dtype: torch.dtype) -> str:
    """Return a precision as pipeline.yaml names it."""
    return "bf16" if dtype == torch.bfloat16 else "fp32"


@functools.lru_cache(maxsize=4)
def _trunk(
    weights: Weights, last: str, pooling: vgg.Pooling, device: torch.device, dtype: torch.dtype
) -> nn.Sequential:
    trunk = vgg.load_trunk(weights.path, last, pooling)
    return trunk.to(device, dtype).to(memory_format=torch.channels_last)


def _shifted(on_step: OnStep | None, first: int) -> Callable[[int, list[float]], None]:
    """Return a report for a batch that begins with the style of index ``first``."""

    def report(done: int, losses: list[float]) -> None:
        for index, loss in enumerate(losses, first):
            if on_step:
                on_step(index, done, loss)

    return report


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the device or the machine has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


@contextlib.contextmanager
def _broken_device_told(device: torch.device) -> Iterator[None]:
    """Raise `DeviceLostError` for an error after which CUDA answers nothing but errors."""
    try:
        yield
    except RuntimeError as error:
        if device.type != "cuda" or is_out_of_memory(error):
            raise
        try:
            torch.cuda.synchronize(device)
            torch.zeros(1, device=device).add_(1).item()
        except RuntimeError as broken:
            raise DeviceLostError(
                f"device: {device}: {error}; CUDA is lost to this process, start it again"
            ) from broken
        raise


@contextlib.contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Ask CUDA for the same bytes every time; CPU kernels give them anyway."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
