"""A small vocabulary: those merges of CLIP's byte-pair encoding that the prompts need most."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import open_clip
from open_clip.tokenizer import get_pairs

__all__ = ["write_merges"]


def write_merges(prompts: Iterable[str], n_merges: int, path: Path) -> None:
    """Choose merges by how often CLIP's tokenizer makes them, and write them in CLIP's order.

    A merge is made at least as often as those that build on it, so that what is kept is whole.

    Parameters
    ----------
    prompts : iterable of str
        Prompts as they will be read.
    n_merges : int
        How many merges to keep.
    path : Path
        The file to write, in the format of open_clip's.
    """
    tokenizer = open_clip.SimpleTokenizer()
    pieces: Counter[str] = Counter()
    for prompt in prompts:
        pieces.update(tokenizer.pat.findall(tokenizer.clean_fn(prompt)))
    made: Counter[tuple[str, str]] = Counter()
    for piece, count in pieces.items():
        encoded = "".join(tokenizer.byte_encoder[byte] for byte in piece.encode())
        for merge in _merges(encoded, tokenizer.bpe_ranks):
            made[merge] += count
    ranks = tokenizer.bpe_ranks
    kept = sorted(made, key=lambda merge: (-made[merge], ranks[merge]))[:n_merges]
    lines = [
        "#merges of open_clip's vocabulary",
        *(" ".join(m) for m in sorted(kept, key=ranks.get)),  # type: ignore[arg-type]
    ]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def _merges(piece: str, ranks: dict[tuple[str, str], int]) -> list[tuple[str, str]]:
    """Merges that encode one piece of text, one for each place where it is made."""
    word = (*piece[:-1], piece[-1] + "</w>")
    made = []
    while len(word) > 1:
        merge = min(get_pairs(word), key=lambda pair: ranks.get(pair, float("inf")))
        if merge not in ranks:
            break
        joined: list[str] = []
        for part in word:
            if joined and (joined[-1], part) == merge:
                joined[-1] += part
                made.append(merge)
            else:
                joined.append(part)
        word = tuple(joined)
    return made
