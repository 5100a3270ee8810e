"""Directions in the space of image features that say what a noun looks like.

Row c of ImageNet's classifier, less the mean row, points to the images of class c. A noun above
classes takes their mean; any other noun a mix of the classes that are near in WordNet.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from wordnet import VISIBLE, WordNet

__all__ = ["Targets", "class_directions", "mean_feature", "unit"]

_WIDTH = 4  # how many links beyond the nearest class a class may lie and still count
_NEIGHBOURS = 0.1  # weight of near classes beside the classes below a noun
_WORN = 3.0  # weight of what people wear beside the classes near a noun for people
_WEARABLE = ("clothing", "headdress", "hairpiece", "footwear")


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to unit length."""
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled


def class_directions(weight: np.ndarray) -> np.ndarray:
    """Turn a classifier's rows into one direction per class: centred, of unit length."""
    return unit(weight - weight.mean(axis=0))


def mean_feature(scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Mean image feature on the network's training images, from its last batch norm alone.

    Before ReLU6 a channel has this mean and deviation there; the mean after it is that of a
    normal variable cut at 0 and 6.
    """
    nodes, weights = hermegauss(101)
    values = np.clip(shift[:, None] + np.abs(scale)[:, None] * nodes, 0, 6)
    mean: np.ndarray = values @ (weights / weights.sum())
    return mean


class Targets:
    """Directions of synsets and words.

    Parameters
    ----------
    wordnet : WordNet
        Nouns.
    classes : list of int
        Offsets of ImageNet's 1,000 synsets in the order of the classifier.
    directions : ndarray of shape (1000, D)
        From :func:`class_directions`, in the space that image features are projected to.
    counts : Path
        WordNet's ``cntlist.rev``: how often each sense of a word was seen.
    """

    def __init__(
        self, wordnet: WordNet, classes: list[int], directions: np.ndarray, counts: Path
    ) -> None:
        self.wordnet = wordnet
        self.directions = directions
        self._row = {offset: row for row, offset in enumerate(classes)}
        self._seen = _read_counts(counts)
        self._number = {offset: i for i, offset in enumerate(wordnet.synsets)}
        self._links = wordnet.distances(classes)
        self._mixes: dict[int, np.ndarray] = {}
        self._person = wordnet.senses["person"][0]
        worn = set[int]().union(*(self._below(wordnet.senses[word][0]) for word in _WEARABLE))
        self._worn = self._even(worn)

    def of_synset(self, offset: int) -> np.ndarray:
        """Direction of a synset, of unit length."""
        return unit(self.mix(offset) @ self.directions)

    def of_word(self, word: str) -> np.ndarray | None:
        """Direction of a word over its visible senses, by their frequency; None if it has none."""
        senses = self.senses(word)
        if not senses:
            return None
        mix = sum(weight * self.mix(offset) for offset, weight in senses)
        return unit(mix @ self.directions)

    def senses(self, word: str) -> list[tuple[int, float]]:
        """Visible senses of a word, each with how often it was seen, plus one."""
        return [
            (offset, 1.0 + self._seen.get((word, number), 0))
            for number, offset in enumerate(self.wordnet.senses.get(word, ()), start=1)
            if self.wordnet.synsets[offset].lexfile in VISIBLE
        ]

    def is_shown(self, offset: int) -> bool:
        """Tell whether a synset is a class or above one."""
        return bool(self._below(offset))

    def links_to_class(self, offset: int) -> int:
        """How far the nearest class is."""
        return int(self._links[:, self._number[offset]].min())

    def mix(self, offset: int) -> np.ndarray:
        """Share of each class in a synset."""
        if offset not in self._mixes:
            self._mixes[offset] = self._mix(offset)
        return self._mixes[offset]

    def _mix(self, offset: int) -> np.ndarray:
        if offset in self._row:
            return self._even({offset})
        below = self._below(offset)
        mix = self._even(below) if below else self._near(offset, below)
        if below:
            mix = mix + _NEIGHBOURS * self._near(offset, below)
        if offset == self._person or self.wordnet.synsets[offset].lexfile == 18:
            # ImageNet has three kinds of people, and shows all others by what they wear.
            mix = mix / mix.sum() + _WORN * self._worn
        shares: np.ndarray = mix / mix.sum()
        return shares

    def _below(self, offset: int) -> set[int]:
        return set(self.wordnet.below(offset) & self._row.keys())

    def _even(self, classes: set[int]) -> np.ndarray:
        mix = np.zeros(len(self._row))
        mix[[self._row[offset] for offset in classes]] = 1 / len(classes)
        return mix

    def _near(self, offset: int, below: set[int]) -> np.ndarray:
        """Classes near a synset but not below it; each further link halves the share."""
        steps = self._links[:, self._number[offset]].copy()
        steps[[self._row[there] for there in below]] = np.iinfo(steps.dtype).max
        beyond = steps - steps.min()
        mix = np.where(beyond <= _WIDTH, 2.0 ** -beyond.astype(float), 0.0)
        return mix / mix.sum()


def _read_counts(path: Path) -> dict[tuple[str, int], int]:
    """How often each numbered sense of each noun was seen."""
    counts: dict[tuple[str, int], int] = defaultdict(int)
    for line in path.read_text(encoding="utf-8").splitlines():
        key, number, count = line.split()
        word, _, kind = key.partition("%")
        if kind[0] == "1":
            counts[word.replace("_", " "), int(number)] += int(count)
    return dict(counts)
