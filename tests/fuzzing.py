"""Damaged image files, and a child process in which they are decoded.

``python tests/fuzzing.py`` is the child: it reads numbers, a line each, and writes a line of
JSON for each; the parent sees whether it ends or hangs.
"""

import contextlib
import faulthandler
import io
import json
import random
import resource
import select
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np  # noqa: E402
import pillow_heif  # noqa: E402
import tifffile  # noqa: E402
from PIL import Image, ImageCms, features  # noqa: E402

from nst_pipeline.config.settings import OutputSettings  # noqa: E402
from nst_pipeline.errors import ImageError  # noqa: E402
from nst_pipeline.images import decoding  # noqa: E402
from nst_pipeline.images.encoding import encode  # noqa: E402

MAX_PIXELS = 2**22
MAX_SECONDS, MAX_BYTES, HANG_SECONDS = 2.0, 2**30, 30.0
HARD_BYTES = 6 * 2**30
"""Of address space: beyond, memory errors come instead of a machine that is out of memory."""
EVERYTHING = OutputSettings(format="jpeg", keep_exif="all")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return a seeded picture; that of conftest comes with torch, which takes seconds to load."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / (3 + seed)), np.cos(y / 4), np.sin((x + y) / 5)], 2)
    return Image.fromarray(((waves * 0.45 + 0.5) * 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    # Copies, for Pillow leaves the options of one kind in an image.
    if others := options.get("append_images"):
        options["append_images"] = [other.copy() for other in others]
    image.copy().save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(samples: Any, photometric: str | int = "rgb", **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, photometric=photometric, **options)
    return buffer.getvalue()


def exif() -> bytes:
    block = Image.Exif()
    block[0x010E], block[0x0112], block[0x011A], block[0x0128] = "a child", 6, 300.0, 2
    block[0x0132], block[0x8298] = "2020:01:02 03:04:05", "somebody"
    block[0x8769] = {0x9003: "2020:01:02 03:04:05", 0xA001: 65535, 0x829A: 0.5,
                     0xA005: {1: "R03", 2: b"0100"}}  # fmt: skip
    block[0x8825] = {1: "N", 2: (52.0, 30.0, 10.0)}
    return block.tobytes()


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" tiff:Orientation="6" '
    b'photoshop:City="Berlin"/></rdf:RDF></x:xmpmeta>'
)


def raw_file(height: int = 96, width: int = 128, photometric: int = 32803) -> bytes:
    """Return a DNG: a thumbnail, and below it the sensor's samples (RGGB)."""
    light = (np.asarray(picture(width, height)) / 255.0) ** 2.2 * 15000 + 200
    sensor = np.zeros((height, width), np.uint16)
    for y, x, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        sensor[y::2, x::2] = light[y::2, x::2, channel]
    one, none = (1, 1), (0, 1)
    matrix = (*one, *none, *none, *none, *one, *none, *none, *none, *one)
    camera = [(50706, 1, 4, (1, 4, 0, 0), True), (50708, 2, 0, "Test Camera", True),
              (271, 2, 0, "Test", True), (272, 2, 0, "Camera", True),
              (50721, 10, 9, matrix, True), (50728, 5, 3, one * 3, True),
              (50778, 3, 1, 21, True)]  # fmt: skip
    pattern = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, (0, 1, 1, 2), True),
               (50714, 3, 1, 200, True), (50717, 4, 1, 15200, True)]  # fmt: skip
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        thumbnail = np.asarray(picture(16, 12))
        writer.write(thumbnail, photometric="rgb", subfiletype=1, subifds=1, metadata=None,
                     extratags=camera)  # fmt: skip
        writer.write(sensor, photometric=photometric, subfiletype=0, metadata=None,
                     extratags=pattern)  # fmt: skip
    return buffer.getvalue()


@cache
def originals() -> dict[str, bytes]:
    """Return a small file of every format and kind."""
    pillow_heif.register_heif_opener()
    small, other = picture(32, 24, 1), picture(40, 30, 2)
    clear = small.copy()
    clear.putalpha(Image.linear_gradient("L").resize(small.size))
    deep = np.random.default_rng(0).integers(0, 65536, (24, 32, 4)).astype(np.uint16)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    about: dict[str, Any] = {"exif": exif(), "icc_profile": srgb}
    several: dict[str, Any] = {"save_all": True, "append_images": [other]}
    rgb = np.ascontiguousarray(deep[..., :3])
    files = {
        "jpeg": encoded(small, "JPEG", xmp=XMP, dpi=(300, 300), **about),
        "jpeg-progressive": encoded(small, "JPEG", progressive=True, exif=exif()),
        "jpeg-grey": encoded(small.convert("L"), "JPEG"),
        "jpeg-cmyk": encoded(small.convert("CMYK"), "JPEG"),
        "mpo": encoded(small, "MPO", **several),
        "png": encoded(clear, "PNG", dpi=(300, 300), **about),
        "png-palette": encoded(small.convert("P"), "PNG", transparency=3, bits=4),
        "png-deep": encode(rgb, None, OutputSettings(bit_depth=16), {}),
        "apng": encoded(small, "PNG", save_all=True, append_images=[picture(32, 24, 3)]),
        "webp": encoded(small, "WEBP", xmp=XMP, **about),
        "webp-lossless": encoded(clear, "WEBP", lossless=True),
        "webp-animated": encoded(small, "WEBP", save_all=True, append_images=[picture(32, 24, 3)]),
        "tiff": encoded(small, "TIFF", dpi=(300, 300), exif=exif(), icc_profile=srgb),
        "tiff-pages": encoded(small, "TIFF", compression="tiff_lzw", **several),
        "tiff-jpeg": encoded(small, "TIFF", compression="jpeg"),
        "tiff-fax": encoded(small.convert("1"), "TIFF", compression="group4"),
        "tiff-deep": tiff(deep, extrasamples=["unassalpha"], compression="deflate", tile=(16, 16)),
        "tiff-planar": tiff(np.moveaxis(rgb, 2, 0).copy(), planarconfig="separate", bigtiff=True),
        "tiff-float": tiff(rgb.astype(np.float32) / 65535, byteorder=">"),
        "tiff-grey": tiff(deep[..., 2:].copy(), "minisblack", extrasamples=["assocalpha"]),
        "raw": raw_file(24, 32),
        "bmp": encoded(small, "BMP"),
        "bmp-palette": encoded(small.convert("P"), "BMP"),
        "gif": encoded(small, "GIF", comment=b"hello", **several),
        "heic": encoded(small, "HEIF", **about),
    }  # fmt: skip
    if features.check("avif"):
        files["avif"] = encoded(small, "AVIF", xmp=XMP, **about)
        files["avif-animated"] = encoded(small, "AVIF", save_all=True,
                                         append_images=[picture(32, 24, 3)])  # fmt: skip
    return files


# Damage


def _bytes(data: bytearray, dice: random.Random) -> None:
    place = dice.randrange(len(data))
    data[place] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256), data[place] ^ 1))


def _number(data: bytearray, dice: random.Random) -> None:
    """Make a length, an offset or a count wrong."""
    size, code = dice.choice(((2, "H"), (4, "I"), (8, "Q")))
    most = 2 ** (8 * size) - 1
    value = dice.choice((0, 1, 2, 8, len(data), len(data) * 2, 32, 65535, most, most // 2, most - 1,
                         dice.randrange(most)))  # fmt: skip
    place = dice.randrange(max(1, len(data) - size))
    data[place : place + size] = struct.pack(dice.choice("<>") + code, min(value, most))


def _tag(data: bytearray, dice: random.Random) -> None:
    """Put a tag, a type, a chunk's name or a marker in the place of something."""
    words = [b"IDAT", b"IEND", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"zTXt",
             b"VP8X", b"VP8 ", b"ALPH", b"EXIF", b"ANMF", b"meta", b"iloc", b"iinf", b"mdat",
             b"ispe", b"irot", b"\xff\xda", b"\xff\xc2", b"\xff\xe1", b"\xff\xd9", b"\x21\xf9",
             *(struct.pack(order + "H", number) for order in "<>" for number in
               (*range(1, 14), 254, *range(256, 263), 273, 274, 277, 279, 282, 284, 296, 317, 322,
                330, 338, 339, 347, 700, 34665, 34675, 34853))]  # fmt: skip
    word = dice.choice(words)
    found = data.find(dice.choice(words), dice.randrange(len(data)))
    place = found if found >= 0 else dice.randrange(len(data))
    data[place : place + len(word)] = word


def _cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def _slice(data: bytearray, dice: random.Random) -> None:
    """Lose some bytes, or have some twice."""
    place, length = dice.randrange(len(data)), dice.choice((1, 2, 4, 12, 64, 500))
    piece = data[place : place + length]
    if dice.random() < 0.5:
        del data[place : place + length]
    else:
        goal = dice.randrange(len(data))
        data[goal:goal] = piece * dice.choice((1, 1, 3, 50))


DAMAGES: list[Callable[[bytearray, random.Random], None]] = [_bytes, _number, _tag, _slice, _cut]


def damaged(number: int) -> tuple[str, bytes]:
    """Return a damaged file and what it was made of, always the same for a number."""
    dice = random.Random(number)
    files = originals()
    name = dice.choice(sorted(files))
    data = bytearray(files[name])
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        # Mostly the front, where what is read first stands.
        front = bytearray(data[: 600 if dice.random() < 0.6 else len(data)])
        rest = data[len(front) :]
        if front:
            dice.choices(DAMAGES, (6, 6, 4, 2, 1))[0](front, dice)
        data = front + rest
    if data[:4] == b"\x89PNG" and dice.random() < 0.7:
        data = _with_checksums(data)
    return name, bytes(data)


def _with_checksums(data: bytearray) -> bytearray:
    """Return a PNG with right checksums, so that its chunks are not refused by them."""
    place = 8
    while place + 12 <= len(data):
        end = place + 12 + struct.unpack_from(">I", data, place)[0]
        if end > len(data):
            break
        data[end - 4 : end] = struct.pack(">I", zlib.crc32(data[place + 4 : end - 4]))
        place = end
    return data


# Both sides


@dataclass
class Report:
    """What came of the files.

    Attributes:
        counts: of the outcomes.
        worst_seconds: of CPU time, with the number of the file.
        worst_bytes: of memory beyond that of an idle process, with the number of the file.
        kinds: how many files were made of each original.
        address_bytes: the largest address space of a child between two files: it grows by a leak.
        findings: what must not be, by the number of the file.
        last_words: what a child that ended or hung wrote to standard error, by the same number.
    """

    counts: Counter[str] = field(default_factory=Counter)
    worst_seconds: tuple[float, int] = (0.0, -1)
    worst_bytes: tuple[int, int] = (0, -1)
    kinds: Counter[str] = field(default_factory=Counter)
    address_bytes: int = 0
    findings: dict[int, str] = field(default_factory=dict)
    last_words: dict[int, str] = field(default_factory=dict)

    def add(self, number: int, said: dict[str, Any]) -> None:
        seconds, size = said["seconds"], said["bytes"]
        self.counts[said["what"].partition(":")[0]] += 1
        self.worst_seconds = max(self.worst_seconds, (seconds, number))
        self.worst_bytes = max(self.worst_bytes, (size, number))
        self.kinds[said["kind"]] += 1
        self.address_bytes = max(self.address_bytes, said["address_bytes"])
        if not said["what"].startswith(("decoded", "refused")):
            self.findings[number] = said["what"]
        elif seconds > MAX_SECONDS:
            self.findings[number] = f"slow: {seconds:.1f} s; {said['what']}"
        elif size > MAX_BYTES:
            self.findings[number] = f"large: {size / 2**20:.0f} MiB; {said['what']}"

    def lose(self, number: int, what: str, words: IO[str]) -> None:
        """Note that a child ended or hung, and put down its last words."""
        self.counts[what.partition(":")[0]] += 1
        self.findings[number] = what
        words.seek(0)
        self.last_words[number] = words.read(10_000)


def fuzz(
    numbers: Iterable[int],
    seconds: float = float("inf"),
    on_finding: Callable[[int], None] = lambda _: None,
) -> Report:
    """Have damaged files decoded in a child, which is started anew when it ends or hangs."""
    return _ask((str(number) for number in numbers), seconds, on_finding)


def check(paths: list[Path]) -> Report:
    """Have files decoded in a child; the report knows them by their place in the list."""
    return _ask((json.dumps(str(path)) for path in paths), float("inf"), lambda _: None)


def _ask(lines: Iterable[str], seconds: float, on_finding: Callable[[int], None]) -> Report:
    with tempfile.TemporaryFile("a+") as words:
        return _ask_with(words, lines, seconds, on_finding)


def _ask_with(
    words: IO[str], lines: Iterable[str], seconds: float, on_finding: Callable[[int], None]
) -> Report:
    report, child = Report(), _child(words)
    end = time.monotonic() + seconds
    for place, line in enumerate(lines):
        if time.monotonic() > end:
            break
        number = int(line) if line.isdigit() else place
        assert child.stdin and child.stdout
        words.truncate(0)
        child.stdin.write(f"{line}\n")
        child.stdin.flush()
        is_there, _, _ = select.select([child.stdout], [], [], HANG_SECONDS)
        answer = child.stdout.readline() if is_there else ""
        if answer:
            report.add(number, json.loads(answer))
        else:
            status = _end(child)
            what = f"crashed: status {status}" if is_there else "hung"
            report.lose(number, what, words)
            child = _child(words)
        if number in report.findings:
            on_finding(number)
    _end(child)
    return report


def _end(child: "subprocess.Popen[str]") -> int:
    """End a child, and return the status that it ended with."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(0.5)  # if it crashed, it is ending
    child.kill()
    assert child.stdin and child.stdout
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    child.stdout.close()
    return child.wait()


def _child(words: IO[str]) -> "subprocess.Popen[str]":
    child = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, text=True,
    )  # fmt: skip
    assert child.stdout and child.stdout.readline() == "ready\n"
    return child


def judge(data: bytes) -> str:
    """Decode a file, and say what came of it."""
    try:
        picture = decoding.decode(data, "it", MAX_PIXELS)
    except ImageError as error:
        reason = str(error)
        return f"refused: {reason}" if reason.startswith("it: ") else f"no reason: {reason!r}"
    except BaseException as error:  # noqa: BLE001 - any at all is what is looked for
        return f"raised: {type(error).__name__}: {error}"
    try:
        decoding.identify(data, "it", MAX_PIXELS)
        if picture.pixels.size > 3 * MAX_PIXELS:
            return f"too large: {picture.pixels.shape}"
        encode(picture.pixels[:8, :8], None, EVERYTHING, {}, picture.metadata)
    except BaseException as error:  # noqa: BLE001 - any at all is what is looked for
        return f"raised after decoding: {type(error).__name__}: {error}"
    return "decoded"


def _memory(what: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) * 1024


def serve() -> None:
    """Judge what the parent names."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (HARD_BYTES, HARD_BYTES))
    for data in originals().values():
        judge(data)
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, int):
            kind, data = damaged(asked)
        else:
            kind, data = Path(asked).name, Path(asked).read_bytes()
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
        before, begun = _memory("VmHWM"), time.process_time()
        what = judge(data)
        said = {"what": what, "kind": kind, "seconds": time.process_time() - begun,
                "bytes": _memory("VmHWM") - before, "address_bytes": _memory("VmSize")}  # fmt: skip
        print(json.dumps(said), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
