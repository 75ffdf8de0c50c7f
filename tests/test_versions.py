"""Versions of installed packages."""

import numpy

from archdsl.versions import installed_version


def test_the_first_installed_package_counts():
    assert installed_version("numpy") == numpy.__version__
    assert installed_version("no-such-package-1", "numpy", "pytest") == numpy.__version__
    assert installed_version("no-such-package-1", "no-such-package-2") is None
