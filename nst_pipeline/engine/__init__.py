"""The engine: tensors in, VGG features, losses and L-BFGS, tensors out.

Pure but for the device, and usable from Python by itself. It must not know of YAML, of the files of
contents and styles, of jobs or of the command line.

from PIL import Image
from nst_pipeline.engine import StyleTransfer, make_recipe

transfer = StyleTransfer(make_recipe("compact", size=256, iterations=100), weights="compact")
(result,) = transfer.run(Image.open("photo.jpg"), [Image.open("style.jpg")])
result.pastiche.save("painted.png")
"""

import os

# cuBLAS reads this once, when CUDA starts; without it its sums differ from run to run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

from nst_pipeline.config.recipe import Recipe, make_recipe  # noqa: E402
from nst_pipeline.engine.batch import Callbacks, Losses, Result  # noqa: E402
from nst_pipeline.engine.checkpoint import Checkpoint, read_checkpoint  # noqa: E402
from nst_pipeline.engine.styles import Style  # noqa: E402
from nst_pipeline.engine.targets import TargetCache  # noqa: E402
from nst_pipeline.engine.transfer import Progress, StyleTransfer  # noqa: E402

__all__ = [
    "Checkpoint", "Losses", "Progress", "Recipe", "Result", "Style", "StyleTransfer",
    "TargetCache", "Callbacks", "make_recipe", "read_checkpoint",
]  # fmt: skip
