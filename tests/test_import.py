"""What is tested is the installed package, not the sources beside the tests."""
import sysconfig
import traceback
from pathlib import Path

import pytest

import iocpcore
from support import run_python


def test_the_installed_package_is_imported():
    assert "site-packages" in Path(iocpcore.__file__).parts


def test_at_least_one_backend_was_built():
    assert iocpcore.backends()


@pytest.mark.parametrize("error", [iocpcore.SessionClosed, iocpcore.SendLimitExceeded])
def test_a_traceback_names_our_errors_as_programs_do(error):
    assert traceback.format_exception_only(error("why")) == [f"iocpcore.{error.__name__}: why\n"]


def test_the_module_is_built_for_this_interpreter_alone():
    assert iocpcore._core.__file__.endswith(sysconfig.get_config_var("EXT_SUFFIX"))


@pytest.mark.parametrize("before", ["import iocpcore", ""], ids=["imported already", "imported first there"])
def test_a_sub_interpreter_is_told_that_it_cannot_have_it(before):
    output = run_python(
        f"""
try:
    import _xxsubinterpreters as interpreters
except ImportError:
    import _interpreters as interpreters
{before}
interpreters.run_string(interpreters.create(), '''
try:
    import iocpcore
except ImportError as error:
    print(error)
''')
"""
    )
    assert "interpreter" in output
