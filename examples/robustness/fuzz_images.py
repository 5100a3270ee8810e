"""Decode damaged image files of every format that Pillow writes, and count what becomes of them.

Among them are images of extreme ratios, with junk in their EXIF, with alpha in their palettes, and
of 16 bits. A file is either read, and then resized as for a model, or refused with
`ImageDecodeError`; anything else is printed as an escape and makes the script fail, and so does a
peak of memory above `MOST_GB`. Run it with standard error discarded: C libraries write their own
there.

    python examples/robustness/fuzz_images.py --n 100000 --seed 0 2> /dev/null
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import resource
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
from PIL import Image

from skhegraph.clip.images import ImageDecodeError, decode_image
from skhegraph.clip.model import load_backbone

MODES = ["RGB", "L", "P", "1", "RGBA", "CMYK", "LA", "I;16", "F", "YCbCr"]
NUMBERS = [n.to_bytes(4, "little") for n in (0, 2**8, 5_000, 5_000 << 16, 2**31 - 1, 2**32 - 1)]
NUMBERS += [number[::-1] for number in NUMBERS]
SIZES = [(1, 1), (37, 23), (64, 64)]
EXTREME = [(1, 20_000), (20_000, 1), (2, 16_000), (16_000, 3)]
COMMON = ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "TGA", "ICO", "ICNS"]
UNWRITABLE = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, struct.error)
# 67 million pixels, the bound, at 20 bytes each, and what torch takes by itself.
MOST_GB = 2.5


def noise(size: tuple[int, int], channels: int = 3) -> Image.Image:
    rng = np.random.default_rng(size[0] * 65537 + size[1])
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], channels), dtype=np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes | None:
    """A file; None where the format has no such mode or size, or needs a handler."""
    file = io.BytesIO()
    try:
        image.save(file, kind, **options)
    except UNWRITABLE:
        return None
    return file.getvalue()


def plain_files() -> Iterator[tuple[str, bytes | None]]:
    """One file of each format, mode and size that Pillow can write."""
    for kind in sorted(Image.SAVE):
        for mode in MODES:
            for size in SIZES:
                image = noise(size).convert("L" if mode == "I;16" else "RGB").convert(mode)
                yield f"plain {kind} {mode} {size[0]}x{size[1]}", saved(image, kind)


def extreme_files() -> Iterator[tuple[str, bytes | None]]:
    """Images that a resize of their short side would make thousands of times as large."""
    for kind in COMMON:
        for width, height in EXTREME:
            for mode in ["RGB", "L", "P"]:
                image = noise((width, height)).convert(mode)
                yield f"extreme {kind} {mode} {width}x{height}", saved(image, kind)


def exif_files() -> Iterator[tuple[str, bytes | None]]:
    """Orientations with junk behind, and junk alone, as PNG, WebP and JPEG with a dpi entry."""
    rng = np.random.default_rng(1)
    for kind, options in [("PNG", {}), ("WEBP", {}), ("JPEG", {"dpi": (72, 72)})]:
        for number in range(20):
            order = [b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"][number % 3]
            head = (b"Exif\0\0" if number % 4 else b"") + order
            entry = b"\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" if number % 5 else b""
            exif = head + entry + rng.bytes(int(rng.integers(0, 80)))
            yield f"EXIF {kind} {number}", saved(noise((37, 23)), kind, exif=exif, **options)


def palette_files() -> Iterator[tuple[str, bytes | None]]:
    """Palettes that hold alpha, and palettes and greys with transparent entries."""
    for size in SIZES:
        clear = noise(size, channels=4).quantize(32)
        opaque = noise(size).quantize(32)
        for kind in COMMON:
            yield f"palette {kind} RGBA {size[0]}x{size[1]}", saved(clear, kind)
            for transparency in [3, bytes(range(32))]:
                name = f"palette {kind} {type(transparency).__name__} {size[0]}x{size[1]}"
                yield name, saved(opaque, kind, transparency=transparency)


def wide_files() -> Iterator[tuple[str, bytes | None]]:
    """Values of 16 bits, all of them in use or 12: PNG of each kind, with and without tRNS, PPM."""
    rng = np.random.default_rng(2)
    for bits in (12, 16):
        for (width, height), colour in [(s, c) for s in SIZES for c in (0, 2, 4, 6)]:
            channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
            values = rng.integers(0, 2**bits, (height, width * channels), dtype=np.uint16)
            lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
            chunks = [
                (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)),
                (b"IDAT", zlib.compress(lines)),
                (b"IEND", b""),
            ]
            name = f"wide PNG {bits} {colour} {width}x{height}"
            yield name, png(chunks)
            if colour in (0, 2):
                clear = (b"tRNS", values[0, :channels].astype(">u2").tobytes())
                yield f"{name} tRNS", png([chunks[0], clear, *chunks[1:]])
        grey = Image.fromarray(rng.integers(0, 2**bits, (23, 37), dtype=np.uint16))
        for kind in ["TIFF", "PPM", "JPEG2000", "PNG"]:
            yield f"wide {kind} {bits}", saved(grey, kind)


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def whole_files() -> dict[str, list[tuple[str, bytes]]]:
    """All files by their family."""
    Image.init()
    families = [plain_files(), extreme_files(), exif_files(), palette_files(), wide_files()]
    files = [(name, data) for family in families for name, data in family if data is not None]
    by_family: dict[str, list[tuple[str, bytes]]] = {}
    for name, data in files:
        by_family.setdefault(name.split()[0], []).append((name, data))
    return by_family


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a file a little: bits, numbers, pieces, its end; often near its start."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if not out:
            break
        reach = len(out) if rng.random() < 0.5 else min(len(out), 64)
        at = int(rng.integers(reach))
        kind = rng.integers(6)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at : at + 4] = rng.bytes(4)
        elif kind == 2:
            out[at : at + 4] = NUMBERS[rng.integers(len(NUMBERS))]
        elif kind == 3:
            del out[at : at + int(rng.integers(1, 64))]
        elif kind == 4:
            other = int(rng.integers(len(out)))
            out[at:at] = out[other : other + int(rng.integers(1, 64))]
        else:
            del out[at:]
    return bytes(out)


def damage_chunk(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage what one chunk of a PNG file holds; with a new checksum, so that it is looked at."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += length + 12
    which = int(rng.integers(len(chunks)))
    chunks[which] = (chunks[which][0], damage(chunks[which][1], rng))
    return png(chunks)


def main() -> int:
    """Damage, decode, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    faulthandler.enable(sys.stdout)
    warnings.simplefilter("ignore")
    backbone = load_backbone("skhegraph-tiny", device="cpu")
    families = whole_files()
    names = sorted({name.split()[1] for files in families.values() for name, _ in files})
    total = sum(map(len, families.values()))
    print(f"{total} whole files of {len(names)} formats: {' '.join(names)}")
    rng = np.random.default_rng(args.seed)
    counts: dict[str, Counter[str]] = {family: Counter() for family in families}
    slowest, largest, start = (0.0, ""), (0.0, ""), time.perf_counter()
    for i in range(args.n):
        family = list(families)[rng.integers(len(families))]
        name, data = families[family][rng.integers(len(families[family]))]
        is_png = name.split()[1] == "PNG" and rng.random() < 0.7
        damaged = (damage_chunk if is_png else damage)(data, rng) if rng.random() < 0.9 else data
        before = time.perf_counter()
        try:
            backbone.resize(decode_image(damaged, backbone.least_side))
            counts[family]["read"] += 1
        except ImageDecodeError:
            counts[family]["refused"] += 1
        except Exception as error:  # what the script is there to find
            counts[family]["escaped"] += 1
            print(f"escaped: file {i}, {name}: {type(error).__name__}: {error}", flush=True)
        slowest = max(slowest, (time.perf_counter() - before, f"file {i}, {name}"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if peak > largest[0]:
            largest = (peak, f"file {i}, {name}")
    for family, count in counts.items():
        what = ", ".join(f"{count[name]} {name}" for name in ("read", "refused", "escaped"))
        print(f"{family:>8}: {what}")
    print(
        f"{args.n} files, seed {args.seed}: {time.perf_counter() - start:.0f} s, "
        f"peak {largest[0]:.2f} GB ({largest[1]}); slowest {slowest[0]:.2f} s ({slowest[1]})"
    )
    escaped = sum(count["escaped"] for count in counts.values())
    return int(escaped > 0 or largest[0] > MOST_GB)


if __name__ == "__main__":
    sys.exit(main())
