"""WordNet's nouns: synsets, their words, glosses and hypernyms, read from its database files."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

__all__ = ["VISIBLE", "Synset", "WordNet"]

VISIBLE = {3, 4, 5, 6, 8, 11, 13, 15, 17, 18, 19, 20, 27}
"""Lexicographer files of what a photograph can show.

Top nouns, acts, animals, artifacts, body parts, events, food, locations, objects, persons,
phenomena, plants and substances.
"""


@dataclass(frozen=True)
class Synset:
    """A set of synonyms.

    Parameters
    ----------
    offset : int
        Its place in ``data.noun``, by which ImageNet names it.
    lexfile : int
        Number of its lexicographer file.
    words : tuple of str
        Its synonyms, with spaces; the first is the most usual.
    gloss : str
        Its definition, without examples.
    parents : tuple of int
        Offsets of its hypernyms.
    is_instance : bool
        Whether it is one of its kind, such as a city or a person of history.
    """

    offset: int
    lexfile: int
    words: tuple[str, ...]
    gloss: str
    parents: tuple[int, ...]
    is_instance: bool


class WordNet:
    """The nouns of WordNet 3.0.

    Parameters
    ----------
    folder : Path
        Folder of ``data.noun``, ``index.noun`` and ``noun.exc``.

    Attributes
    ----------
    synsets : dict from int to Synset
        By offset.
    senses : dict from str to list of int
        Offsets of the synsets of a word in lower case, the most frequent first.
    plurals : dict from str to str
        Irregular plurals by their singular.
    """

    def __init__(self, folder: Path) -> None:
        self.synsets: dict[int, Synset] = {}
        for line in _lines(folder / "data.noun"):
            synset = _parse(line)
            self.synsets[synset.offset] = synset
        self.senses: dict[str, list[int]] = {}
        for line in _lines(folder / "index.noun"):
            fields = line.split()
            n_senses, n_pointers = int(fields[2]), int(fields[3])
            offsets = [int(field) for field in fields[4 + n_pointers + 2 :]]
            self.senses[fields[0].replace("_", " ")] = offsets[:n_senses]
        exceptions = (line.split() for line in (folder / "noun.exc").read_text().splitlines())
        self.plurals = {
            fields[1].replace("_", " "): fields[0].replace("_", " ") for fields in exceptions
        }

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """Offsets of the hyponyms of each synset that has any."""
        below = defaultdict(list)
        for synset in self.synsets.values():
            for parent in synset.parents:
                below[parent].append(synset.offset)
        return dict(below)

    @cache  # noqa: B019 - there is one WordNet
    def below(self, offset: int) -> frozenset[int]:
        """Offsets of a synset and of all below it."""
        children = self.children.get(offset, [])
        return frozenset({offset}).union(*(self.below(child) for child in children))

    def distances(self, starts: list[int]) -> np.ndarray:
        """Links up or down from each of some synsets to each synset, as an (n, synsets) array."""
        number = {offset: i for i, offset in enumerate(self.synsets)}
        links = [(number[s.offset], number[up]) for s in self.synsets.values() for up in s.parents]
        rows, columns = np.array(links).T
        graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(number),) * 2).tocsr()
        pieces = [
            shortest_path(
                graph, "D", directed=False, unweighted=True, indices=number[start]
            ).astype(np.int16)
            for start in starts
        ]
        return np.stack(pieces)

    def plural(self, noun: str) -> str:
        """Plural of a noun, made by its last word."""
        if noun in self.plurals:
            return self.plurals[noun]
        head, space, last = noun.rpartition(" ")
        if last in self.plurals:
            return head + space + self.plurals[last]
        if last.endswith(("s", "x", "z", "ch", "sh")):
            return noun + "es"
        if last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
            return noun[:-1] + "ies"
        return noun + "s"


def _lines(path: Path) -> list[str]:
    """Lines of a database file, without the licence that it begins with."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line[:2] != "  "]


def _parse(line: str) -> Synset:
    """Read one line of ``data.noun``."""
    data, _, gloss = line.partition(" | ")
    fields = data.split()
    n_words = int(fields[3], 16)
    words = tuple(word.replace("_", " ") for word in fields[4 : 4 + 2 * n_words : 2])
    pointers = fields[5 + 2 * n_words :]
    parents = tuple(
        int(pointers[i + 1]) for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")
    )
    definition = gloss.partition('; "')[0].strip()
    is_instance = "@i" in pointers
    return Synset(int(fields[0]), int(fields[1]), words, definition, parents, is_instance)
