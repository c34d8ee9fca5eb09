"""Decoders that crash: a ``sitecustomize`` that has every Python below it abort at a BMP."""

import os
from pathlib import Path

CODE = """
import importlib.abc, importlib.machinery, os, sys
from nst_pipeline_crash import WHERE, HOW

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "nst_pipeline.images.decoding":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            decoder = getattr(module, WHERE)
            def deadly(first, *rest):
                data = first if isinstance(first, bytes) else first.data
                if data[:2] == b"BM":
                    os.kill(os.getpid(), HOW)
                return decoder(first, *rest)
            setattr(module, WHERE, deadly)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
STAGES = {"header": "_looked_at", "pixels": "_samples"}
"""What crashes: the look at a file's header, or the decoding of its pixels."""


def crashing(folder: Path, stage: str, how: int) -> dict[str, str]:
    """Return the environment of programs that are ended by a BMP.

    Args:
        folder: for what they load.
        stage: of `STAGES`.
        how: the signal that ends them.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(CODE)
    told = f"WHERE, HOW = {STAGES[stage]!r}, {int(how)}\n"
    (folder / "nst_pipeline_crash.py").write_text(told)
    paths = [str(folder), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
