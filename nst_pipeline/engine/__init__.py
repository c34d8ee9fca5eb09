"""The engine: tensors in, VGG features, losses, L-BFGS or Adam, tensors out.

Pure but for the device, and usable from Python by itself. It must not know of YAML, of the files of
contents and styles, of jobs or of the command line.

from PIL import Image
from nst_pipeline.engine import StyleTransfer, make_recipe

transfer = StyleTransfer(make_recipe(size=256, iterations=100), weights="compact")
(result,) = transfer.run(Image.open("photo.jpg"), [Image.open("style.jpg")])
result.pastiche.save("painted.png")
"""

import gc
import os

# cuBLAS reads this once, when CUDA starts; without it its sums differ from run to run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# So does torch this: what it cannot do on Apple's GPUs it then does on the CPU.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

# torch makes hundreds of thousands of objects, which stay: to look for garbage among them while it
# is imported, now and then, and at the end of the process takes half a second.
_was_enabled = gc.isenabled()
gc.disable()
import torch  # noqa: E402, F401

gc.freeze()
if _was_enabled:
    gc.enable()

from nst_pipeline.config.recipe import Recipe, make_recipe  # noqa: E402
from nst_pipeline.engine.batch import (  # noqa: E402
    Callbacks,
    FunctionCallbacks,
    Losses,
    OnStep,
    Result,
)
from nst_pipeline.engine.checkpoint import Checkpoint, read_checkpoint  # noqa: E402
from nst_pipeline.engine.styles import Style, make_style  # noqa: E402
from nst_pipeline.engine.targets import TargetCache  # noqa: E402
from nst_pipeline.engine.transfer import StyleTransfer  # noqa: E402

__all__ = [
    "Callbacks", "Checkpoint", "FunctionCallbacks", "Losses", "OnStep", "Recipe", "Result",
    "Style", "StyleTransfer", "TargetCache", "make_recipe", "make_style", "read_checkpoint",
]  # fmt: skip
