"""Decode damaged image files of every format that Pillow writes, and count what becomes of them.

A file is either read or refused with `ImageDecodeError`; anything else is printed as an escape and
makes the script fail. Run it with standard error discarded: C libraries write their own there.

    python examples/robustness/fuzz_images.py --n 100000 --seed 0 2> /dev/null
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import resource
import sys
import time
import warnings
from collections import Counter

import numpy as np
from PIL import Image

from skhegraph.clip.images import ImageDecodeError, decode_image

MODES = ["RGB", "L", "P", "1", "RGBA", "CMYK", "LA", "I;16", "F", "YCbCr"]
NUMBERS = [n.to_bytes(4, "little") for n in (0, 2**8, 5_000, 5_000 << 16, 2**31 - 1, 2**32 - 1)]
NUMBERS += [number[::-1] for number in NUMBERS]
SIZES = [(1, 1), (37, 23), (64, 64)]


def whole_files() -> list[tuple[str, bytes]]:
    """One file of each format, mode and size that Pillow can write."""
    Image.init()
    rng = np.random.default_rng(0)
    files = []
    for name in sorted(Image.SAVE):
        for mode in MODES:
            for size in SIZES:
                noise = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
                file = io.BytesIO()
                try:
                    noise.convert("L" if mode == "I;16" else "RGB").convert(mode).save(file, name)
                except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError):
                    continue  # the format has no such mode or size, or needs a handler
                files.append((f"{name} {mode} {size[0]}x{size[1]}", file.getvalue()))
    return files


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


def main() -> int:
    """Damage, decode, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    faulthandler.enable(sys.stdout)
    warnings.simplefilter("ignore")
    files = whole_files()
    names = sorted({name.split()[0] for name, _ in files})
    print(f"{len(files)} whole files of {len(names)} formats: {' '.join(names)}")
    rng = np.random.default_rng(args.seed)
    counts: Counter[str] = Counter()
    slowest, largest, start = (0.0, ""), (0.0, ""), time.perf_counter()
    for i in range(args.n):
        name, data = files[rng.integers(len(files))]
        damaged = damage(data, rng)
        before = time.perf_counter()
        try:
            decode_image(damaged)
            counts["read"] += 1
        except ImageDecodeError:
            counts["refused"] += 1
        except Exception as error:  # what the script is there to find
            counts["escaped"] += 1
            print(f"escaped: file {i}, {name}: {type(error).__name__}: {error}", flush=True)
        slowest = max(slowest, (time.perf_counter() - before, f"file {i}, {name}"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if peak > largest[0]:
            largest = (peak, f"file {i}, {name}")
    print(
        f"{args.n} files, seed {args.seed}: {counts['read']} read, {counts['refused']} refused, "
        f"{counts['escaped']} escaped; {time.perf_counter() - start:.0f} s, "
        f"peak {largest[0]:.2f} GB ({largest[1]}); slowest {slowest[0]:.2f} s ({slowest[1]})"
    )
    return min(counts["escaped"], 1)


if __name__ == "__main__":
    sys.exit(main())
