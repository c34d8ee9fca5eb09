"""The wheel as others get it: built, installed outside the checkout, and run there."""

import email
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import picture

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the wheel, and the archive of the sources that it is built from."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
        text=True,
    )
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def test_the_packages_hold_the_licence_and_say_so(built: tuple[Path, Path]) -> None:
    wheel, sources = built
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (where,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(archive.read(where))
        licences = where.replace("METADATA", "licenses")
        for name in ("LICENSE", "NOTICE"):
            assert archive.read(f"{licences}/{name}") == (ROOT / name).read_bytes()
    assert told["License-Expression"] == "MIT"
    assert told.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert told["Author"] and told["Keywords"] and told.get_all("Classifier")
    with tarfile.open(sources) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "NOTICE", "CONTRIBUTING.md", "README.md", "scripts/test"} <= held


def test_the_wheel_works_in_a_fresh_environment(
    built: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, _ = built
    monkeypatch.delenv("PYTHONPATH", raising=False)
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
    assert "1 job done" in done and (tmp_path / "out" / "photo-style.png").is_file()
    assert (environment / "share" / "man" / "man1" / "nst-pipeline.1").is_file()
    run("init", "new")
    assert len(list((tmp_path / "new" / "styles").iterdir())) == 3
