"""What a bug report needs: the versions of Python, of this package and of what it stands on.

Run ``python -c "import skhegraph; skhegraph.show_versions()"``.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version

from skhegraph._version import __version__

#: Extras whose packages are what a user installs to use more of the package.
EXTRAS = ("lite", "plot", "cluster")


def show_versions() -> None:
    """Print the versions of Python, skhegraph and its dependencies, and the devices that torch has.

    The system part is that of scikit-learn. Nothing is sent anywhere.

    Examples
    --------
    >>> import skhegraph
    >>> skhegraph.show_versions()  # doctest: +SKIP
    """
    from skhegraph._sklearn import get_sys_info

    print("\nSystem:")
    for key, value in get_sys_info().items():
        print(f"{key:>12}: {value}")
    print(f"\nskhegraph: {__version__}")
    for title, packages in dependencies().items():
        print(f"\n{title}:")
        for name in packages:
            print(f"{name:>32}: {_version_of(name)}")
    print(f"\ndevices: {_devices()}")


def dependencies() -> dict[str, list[str]]:
    """Names of the required packages and of those of the extras, from the package's metadata.

    Returns
    -------
    dict of list of str
        ``"Python dependencies"`` and ``"Optional"``.
    """
    required: list[str] = []
    optional: list[str] = []
    for line in requires("skhegraph") or []:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if extra is None:
            required.append(name)
        elif extra[1] in EXTRAS and name not in optional:
            optional.append(name)
    return {"Python dependencies": required, "Optional": optional}


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> str:
    """Devices that torch can use."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    found = ["cpu"]
    found += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return f"{', '.join(found)} ({torch.get_num_threads()} threads)"
