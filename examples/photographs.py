"""Photographs for the guide, without a download: those that come with the libraries.

scikit-learn and scikit-image ship a few photographs. Square pieces cut out of them, at random
places and in random sizes, are the images of the guide, and what is in the photograph is their
class. Pieces of one photograph resemble each other more than photographs of one kind do, and some
show nothing but sky: mind this when you read an accuracy.
"""

import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images


def load_photographs():
    """One photograph of each class, by its name."""
    temple, flower = load_sample_images().images
    return {
        "astronaut": data.astronaut(),
        "brick wall": data.brick(),
        "cat": data.chelsea(),
        "coins": data.coins(),
        "cup of coffee": data.coffee(),
        "flower": flower,
        "grass": data.grass(),
        "gravel": data.gravel(),
        "motorcycle": data.stereo_motorcycle()[0],
        "rocket": data.rocket(),
        "temple": temple,
    }


def load_pieces(n_per_class=30, names=None, random_state=0):
    """Cut pieces out of the photographs.

    Parameters
    ----------
    n_per_class : int, default=30
        Pieces of each photograph.
    names : list of str or None, default=None
        Classes; None takes all.
    random_state : int, default=0
        Seed of places and sizes.

    Returns
    -------
    list of PIL.Image.Image
        Pieces with sides of 12 to 30 % of the shorter side of their photograph.
    ndarray of str
        Their classes.
    """
    rng = np.random.RandomState(random_state)
    pieces, labels = [], []
    for name, photograph in load_photographs().items():
        height, width = photograph.shape[:2]
        for _ in range(n_per_class):
            side = int(min(height, width) * rng.uniform(0.12, 0.30))
            top, left = rng.randint(height - side + 1), rng.randint(width - side + 1)
            if names is None or name in names:
                piece = photograph[top : top + side, left : left + side]
                pieces.append(Image.fromarray(piece).convert("RGB"))
                labels.append(name)
    return pieces, np.array(labels)


def show_pieces(ax, pieces, captions, colors=None, n_columns=6):
    """Draw pieces in a grid on one axes, each with a caption below it."""
    ax.set_axis_off()
    n_rows = -(-len(pieces) // n_columns)
    for k, (piece, caption) in enumerate(zip(pieces, captions, strict=True)):
        row, column = divmod(k, n_columns)
        panel = ax.inset_axes(
            (
                (column + 0.05) / n_columns,
                1 - (row + 0.76) / n_rows,
                0.9 / n_columns,
                0.74 / n_rows,
            )
        )
        panel.imshow(piece.resize((96, 96)))
        panel.set(xticks=[], yticks=[])
        color = "black" if colors is None else colors[k]
        panel.set_xlabel(caption, fontsize=8, color=color, labelpad=3)
