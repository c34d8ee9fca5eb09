"""The wheel as others get it: built, installed outside the checkout, and run there."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from conftest import picture

ROOT = Path(__file__).parents[1]


def test_the_wheel_works_in_a_fresh_environment(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
        text=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True
    )
    # The dependencies, 5 GB of them, are those of the environment that runs the tests.
    (site,) = (environment / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    picture(seed=1).save(tmp_path / "photo.jpg")
    picture(seed=2).save(tmp_path / "style.jpg")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [environment / "bin" / "nst-pipeline", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    where = subprocess.run(
        [python, "-c", "import nst_pipeline; print(nst_pipeline.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(site)
    done = run("run", "photo.jpg", "-s", "style.jpg", "--weights", "compact", "--size", "32",
               "--iterations", "1", "--outbox", "out")  # fmt: skip
    assert "1 done" in done and (tmp_path / "out" / "photo-style.png").is_file()
    run("init", "new")
    assert len(list((tmp_path / "new" / "styles").iterdir())) == 3
