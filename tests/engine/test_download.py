import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mirror import Mirror, StandIn, serving, stand_in
from safetensors import safe_open
from safetensors.torch import load_file

from nst_pipeline.config.weights import PUBLISHED, resolve
from nst_pipeline.digests import bytes_digest, file_digest
from nst_pipeline.engine import download
from nst_pipeline.engine.vgg import load_trunk
from nst_pipeline.errors import CannotCreateError, DiskFullError, UnavailableError


@pytest.fixture
def imagenet(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return stand_in("imagenet", monkeypatch)


@pytest.fixture
def mirror(imagenet: StandIn) -> Iterator[Mirror]:
    with serving(imagenet.data) as mirror:
        yield mirror


def test_a_good_download_is_kept_and_not_made_twice(imagenet: StandIn, mirror: Mirror) -> None:
    path = download.fetch(imagenet.published, mirror.url)
    assert path == imagenet.published.path and path.read_bytes() == imagenet.data
    assert download.fetch(imagenet.published, mirror.url) == path
    assert len(mirror.requests) == 1
    assert resolve("auto").id == "imagenet"


@pytest.mark.parametrize("only", [False, True], ids=["whole", "convolutions"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("truncated", "ends after [0-9,]+ of [0-9,]+ bytes"),
        ("wrong", r"another file than expected \(its SHA-256 starts with .*\)"),
        ("404", "Not Found"),
        ("stalled", "timed out"),
        ("silent", "timed out"),
    ],
)
def test_a_download_that_goes_wrong_is_told_and_nothing_is_kept(
    fault: str,
    said: str,
    only: bool,
    imagenet: StandIn,
    mirror: Mirror,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mirror.fault = fault
    if said == "timed out":
        monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.5)
    with pytest.raises(UnavailableError, match=f"{said}; nothing was kept") as caught:
        download.fetch(imagenet.published, mirror.url, convolutions_only=only)
    assert str(caught.value).startswith(f"weights: {mirror.url}: ")
    assert "--url" not in str(caught.value)
    assert list(imagenet.published.path.parent.iterdir()) == []
    assert resolve("auto").id == "compact"


@pytest.mark.parametrize(
    ("url", "said"), [("http://127.0.0.1:1/none.pth", "refused"), ("none.pth", "No such file")]
)
def test_an_address_that_does_not_answer_is_told(url: str, said: str) -> None:
    with pytest.raises(UnavailableError, match=said):
        download.fetch(PUBLISHED["imagenet"], url)


def test_the_progress_of_a_download_is_told(imagenet: StandIn, mirror: Mirror) -> None:
    told: list[tuple[int, int | None]] = []
    download.fetch(imagenet.published, mirror.url, lambda done, total: told.append((done, total)))
    assert told == sorted(told) and told[-1] == (len(imagenet.data), len(imagenet.data))


def test_a_cache_that_cannot_be_made_is_told_before_the_download(
    imagenet: StandIn, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(CannotCreateError) as caught:
        download.fetch(imagenet.published, mirror.url)
    assert str(caught.value) == (
        f"{tmp_path}/file/hub/checkpoints: no files can be created here: File exists; "
        "check its permissions and free space, or set TORCH_HOME to another folder"
    )
    assert not mirror.requests


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Return a function that keeps the cache on a file system with options, if it can be made."""
    home = tmp_path / "disk"
    home.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(home))

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(home)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
        return home

    yield mount
    subprocess.run(["umount", home], capture_output=True)


def test_a_cache_on_a_read_only_disk_is_told(
    imagenet: StandIn, mirror: Mirror, mounted: Callable[[str], Path]
) -> None:
    home = mounted("ro")
    with pytest.raises(CannotCreateError, match=f"{home}/hub.*Read-only.*TORCH_HOME"):
        download.fetch(imagenet.published, mirror.url)


def test_a_full_disk_is_told_and_nothing_is_kept(
    imagenet: StandIn, mirror: Mirror, mounted: Callable[[str], Path]
) -> None:
    home = mounted("size=64k")
    with pytest.raises(DiskFullError, match=f"{home}/hub/.*No space left"):
        download.fetch(imagenet.published, mirror.url)
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_a_damaged_file_in_the_cache_is_replaced_by_the_download(
    imagenet: StandIn, mirror: Mirror
) -> None:
    path = imagenet.published.path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    with pytest.raises(UnavailableError, match="damaged"):
        resolve("imagenet")
    assert download.fetch(imagenet.published, mirror.url).read_bytes() == imagenet.data


@pytest.mark.parametrize("network", ["imagenet", "vgg16"])
def test_the_convolutions_alone_are_kept_and_used_like_the_whole_file(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = stand_in(network, monkeypatch)
    with serving(given.data) as mirror:
        path = download.fetch(given.published, mirror.url, convolutions_only=True)
        # Neither again, nor the whole where they are there.
        for only in (True, False):
            assert download.fetch(given.published, mirror.url, convolutions_only=only) == path
    assert len(mirror.requests) == 1
    assert list(path.parent.iterdir()) == [path] and path.suffix == ".safetensors"
    assert path.stem.endswith(f"-convolutions-{file_digest(path)[:8]}")
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"source_sha256": bytes_digest(given.data)}
    (whole := tmp_path / "whole.pth").write_bytes(given.data)
    expected, found = (load_trunk(each, "pool5").state_dict() for each in (whole, path))
    assert found.keys() == expected.keys() and len(load_file(path)) == len(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert path.stat().st_size < len(given.data) / 10
    used = resolve(network)
    assert (used.id, used.path) == (network, path)
    assert used.sha256 == bytes_digest(given.data), "the same weights make the same jobs"
    assert used.note.endswith(", its convolutions alone")
    assert resolve("auto") == used


def test_the_convolutions_are_taken_from_a_whole_file_that_is_there(
    imagenet: StandIn, mirror: Mirror
) -> None:
    whole = download.fetch(imagenet.published, mirror.url)
    before = resolve("imagenet")
    path = download.fetch(imagenet.published, mirror.url, convolutions_only=True)
    assert len(mirror.requests) == 1 and whole.is_file()
    assert resolve("imagenet") == before
    whole.unlink()
    assert resolve("imagenet").path == path and resolve("imagenet").sha256 == before.sha256


def test_damaged_convolutions_are_told_and_replaced(imagenet: StandIn, mirror: Mirror) -> None:
    path = download.fetch(imagenet.published, mirror.url, convolutions_only=True)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(UnavailableError, match=f"{path.name}: damaged .* delete it, then"):
        resolve("auto")
    assert download.fetch(imagenet.published, mirror.url, convolutions_only=True) == path
    assert path.read_bytes() == good


def test_convolutions_of_another_source_are_refused(
    imagenet: StandIn, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = download.fetch(imagenet.published, mirror.url, convolutions_only=True)
    other = imagenet.published.path.with_name("vgg19-00000000.pth")
    monkeypatch.setitem(PUBLISHED, "imagenet", replace(imagenet.published, basename=other.name))
    path.rename(path.with_name(f"{other.stem}-convolutions-{path.stem[-8:]}.safetensors"))
    with pytest.raises(UnavailableError, match="not the convolutions of vgg19-00000000.pth"):
        resolve("imagenet")


def test_a_download_whose_convolutions_find_no_room_leaves_nothing(
    imagenet: StandIn, mirror: Mirror, mounted: Callable[[str], Path]
) -> None:
    home = mounted(f"size={len(imagenet.data) // 4096 * 4 + 12}k")
    with pytest.raises(DiskFullError, match="-convolutions-.*No space left"):
        download.fetch(imagenet.published, mirror.url, convolutions_only=True)
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("network", "file"), [("imagenet", "vgg19-dcbb9e9d.pth"), ("vgg16", "vgg16-397923af.pth")]
)
def test_the_address_is_that_of_torchvision(network: str, file: str) -> None:
    assert download.address(PUBLISHED[network]).endswith(f"/{file}")
    assert PUBLISHED[network].basename == file
