"""What is tested is the installed package, not the sources beside the tests."""
from pathlib import Path

import iocpcore


def test_the_installed_package_is_imported():
    assert "site-packages" in Path(iocpcore.__file__).parts


def test_at_least_one_backend_was_built():
    assert iocpcore.backends()
