"""What is tested is the installed package, not the sources beside the tests."""
import sysconfig
from pathlib import Path

import iocpcore


def test_the_installed_package_is_imported():
    assert "site-packages" in Path(iocpcore.__file__).parts


def test_at_least_one_backend_was_built():
    assert iocpcore.backends()


def test_the_module_is_built_for_this_interpreter_alone():
    assert iocpcore._core.__file__.endswith(sysconfig.get_config_var("EXT_SUFFIX"))
