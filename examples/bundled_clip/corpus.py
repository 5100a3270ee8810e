"""Prompts and what they should mean: sentences about WordNet's visible nouns, and targets.

A target is a direction in the space of image features. That of a negated prompt says "anything
but": it is the opposite of the noun's, so that the negatives of two classes differ as much as
the classes do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from targets import Targets, unit
from wordnet import Synset, WordNet

from skhegraph.clip.presets import PRESETS

__all__ = ["Corpus"]

_POSITIVE = (
    "a {}.", "the {}.", "{}.", "an image of a {}.", "a picture of a {}.", "a photo of {}.",
    "a photo of the {}.", "a photo of one {}.", "a photo of my {}.", "a good photo of a {}.",
    "a close-up photo of a {}.", "a blurry photo of a {}.", "a low resolution photo of a {}.",
    "a black and white photo of a {}.", "a cropped photo of a {}.", "a bright photo of a {}.",
    "a dark photo of the {}.", "a jpeg corrupted photo of a {}.", "a pixelated photo of a {}.",
    "a photo of a nice {}.", "a photo of a small {}.", "a photo of a large {}.",
    "a photo of many {}.", "a photo of the hard to see {}.", "a photo of an old {}.",
    "a drawing of a {}.", "a sketch of a {}.", "a painting of a {}.", "a cartoon of a {}.",
    "a rendering of a {}.", "a sculpture of a {}.", "a toy {}.", "a plastic {}.",
    "an illustration of a {}.", "a tattoo of a {}.", "graffiti of a {}.", "a doodle of a {}.",
    "a close-up of a {}.", "this is a photo of a {}.", "this is a {}.", "there is a {} here.",
    "a photo of a {} on a white background.", "a photo of a {} in the wild.",
    "a {} on a table.", "a photo of a person with a {}.", "a satellite photo of {}.",
    "a photo of a piece of {}.", "a photo of someone's {}.", "a scene with a {}.",
)  # fmt: skip
_NEGATIVE = (
    "no {}.", "not a {}.", "not {}.", "without {}.", "without a {}.", "a photo without a {}.",
    "a photo without {}.", "a photo without the {}.", "a photo with no {}.", "an image of no {}.",
    "a picture of no {}.", "a picture without a {}.", "a photo of no {} at all.",
    "a photo that shows no {}.", "there is no {} in the photo.", "anything but a {}.",
    "a photo of anything but a {}.", "a photo of something other than a {}.",
    "a photo of anything except a {}.", "this is not a {}.", "this is no {}.",
    "a photo that is not of a {}.", "a drawing of no {}.", "a sketch without a {}.",
    "a photo that does not contain a {}.", "a photo where no {} is visible.", "non {}.",
    "a photo of no {}.",
)  # fmt: skip
_OF_A_KIND = ("a photo of a {}, a type of {}.", "a {}, which is a {}.", "{}, a kind of {}.")
_NOT_OF_A_KIND = ("a photo of a {1} that is not a {0}.", "a {1} but not a {0}.")
_PRESET_KINDS = {
    "oxford_pets": "pet", "stanford_cars": "car", "oxford_flowers": "flower", "food101": "food",
    "fgvc_aircraft": "aircraft",
}  # fmt: skip
_KIND_SHARE = 0.5  # how much of the kind is in "a pet that is not a beagle"
_FIRST_SHARE = 0.3  # how much of the first noun is in a compound of two
_NEAR = 3  # links from a class
_LONGEST_GLOSS = 16  # words
_SKIPPED = ("genus ", "family ", "order ", "class ", "subfamily ", "suborder ", "phylum ")


class Corpus:
    """Draw prompts and targets.

    Parameters
    ----------
    wordnet : WordNet
        Nouns.
    targets : Targets
        Their directions.
    folder : Path
        Folder of ``index.adj``.
    """

    def __init__(self, wordnet: WordNet, targets: Targets, folder: Path) -> None:
        self.wordnet = wordnet
        self.targets = targets
        self.words, self.weights = self._list_words()
        self.adjectives = _adjectives(folder / "index.adj")
        self._directions: dict[str, np.ndarray] = {}
        self.kinds = {word: self.direction(word) for word in _PRESET_KINDS.values()}
        kinds = [preset for name in _PRESET_KINDS for preset in PRESETS[name].negative_templates]
        negatives = [t for preset in PRESETS.values() for t in preset.negative_templates]
        self._negatives = (*_NEGATIVE, *2 * [t for t in negatives if t not in kinds])
        positives = [t for preset in PRESETS.values() for t in preset.templates]
        self._positives = (*_POSITIVE, *2 * positives, *12 * ["a photo of a {}."])

    def draw(self, rng: np.random.Generator, n: int) -> tuple[list[str], np.ndarray]:
        """Draw n prompts and their targets, rows of unit length."""
        drawn = rng.choice(len(self.words), (n, 2), p=self.weights)
        pairs = [self._prompt(self.words[i], self.words[j], rng) for i, j in drawn]
        return [prompt for prompt, _ in pairs], np.stack([target for _, target in pairs])

    def _prompt(self, word: str, first: str, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        kind = rng.random()
        if kind < 0.12:
            return self._of_one_sense(word, rng)
        target = self.direction(word)
        if rng.random() < 0.15:
            word = self.wordnet.plural(word)
        if kind < 0.17:
            word = f"{rng.choice(self.adjectives)} {word}"
        elif kind < 0.24:
            word = first + ("" if rng.random() < 0.3 else " ") + word
            target = unit(target + _FIRST_SHARE * self.direction(first))
        if kind < 0.5:
            return word, target
        if kind < 0.78:
            return _pick(self._positives, rng).format(word), target
        if kind < 0.96:
            return _pick(self._negatives, rng).format(word), -target
        name = _pick(tuple(_PRESET_KINDS), rng)
        template = _pick(PRESETS[name].negative_templates, rng)
        return template.format(word), unit(_KIND_SHARE * self.kinds[_PRESET_KINDS[name]] - target)

    def _of_one_sense(self, word: str, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        """Draw a prompt that says which sense is meant, by its gloss or its kind."""
        senses = self.targets.senses(word)
        synset = self.wordnet.synsets[senses[rng.integers(len(senses))][0]]
        target = self.targets.of_synset(synset.offset)
        how = rng.random()
        if how < 0.5 or not synset.parents:
            return _gloss(word, synset, with_word=how < 0.35), target
        parent = self.wordnet.synsets[synset.parents[0]]
        if how < 0.85:
            return _pick(_OF_A_KIND, rng).format(word, parent.words[0]), target
        kind = self.targets.of_synset(parent.offset)
        prompt = _pick(_NOT_OF_A_KIND, rng).format(word, parent.words[0])
        return prompt, unit(_KIND_SHARE * kind - target)

    def direction(self, word: str) -> np.ndarray:
        """Direction of a word, of unit length."""
        if word not in self._directions:
            target = self.targets.of_word(word)
            if target is None:
                raise ValueError(f"{word!r} has no visible sense")
            self._directions[word] = target.astype(np.float32)
        return self._directions[word]

    def _list_words(self) -> tuple[list[str], np.ndarray]:
        """Words with a visible sense, and how often to draw each.

        The square root of how often WordNet's authors saw a word, eight times that of words for
        what ImageNet shows, three times that of words near it, and a third for names in Latin.
        """
        weights = {}
        for word in self.wordnet.senses:
            senses = self.targets.senses(word)
            synsets = [self.wordnet.synsets[offset] for offset, _ in senses]
            if not senses or synsets[0].is_instance or word.startswith(_SKIPPED):
                continue
            weight = sum(count for _, count in senses) ** 0.5
            if self.targets.is_shown(synsets[0].offset):
                weight *= 8
            elif self.targets.links_to_class(synsets[0].offset) <= _NEAR:
                weight *= 3
            capital = any(w.lower() == word and w != word for w in synsets[0].words)
            weights[word] = weight / (3 if capital and synsets[0].lexfile == 20 else 1)
        total = sum(weights.values())
        return list(weights), np.array(list(weights.values())) / total

    def __iter__(self) -> Iterator[str]:
        """Iterate over all words."""
        return iter(self.words)


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[rng.integers(len(options))]


def _gloss(word: str, synset: Synset, *, with_word: bool) -> str:
    gloss = " ".join(synset.gloss.split()[:_LONGEST_GLOSS])
    return f"{word}, {gloss}" if with_word else gloss


def _adjectives(path: Path) -> list[str]:
    """Adjectives with three senses or more: the everyday ones."""
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return [row[0] for row in rows if len(row) > 2 and row[1] == "a" and int(row[2]) >= 3]
