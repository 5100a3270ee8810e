"""Ratios of time and memory to named references, measured in one run.

Predictions and fits against bare NumPy and scikit-learn, image files to features against a plain
open_clip loop, a search against its fits, imports, and the cluster against its parts. Figures below
some seconds are medians of several runs; features are synthetic (class centres plus noise) and, as
CLIPFeatures gives them, in single precision.

    python examples/benchmarks/speed.py                 # all sections
    python examples/benchmarks/speed.py predict import  # some of them
"""

from __future__ import annotations

import argparse

import speed_features
import speed_images

SECTIONS = {**speed_features.SECTIONS, **speed_images.SECTIONS}


def main() -> None:
    """Print the table of the sections asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="all by default")
    wanted = parser.parse_args().sections or list(SECTIONS)
    print("| what | ours | reference | ratio |\n|---|---|---|---|")
    for name in wanted:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
