"""The options of sessions: what is documented, what type checkers know and what the core takes are the same."""

import inspect
import socket

import pytest

import iocpcore
from iocpcore._core import OPTION_BOUNDS, option_defaults
from iocpcore._options import ServeOptions
from support import Recorder

DEFAULTS = option_defaults()
NUMBERS = sorted(OPTION_BOUNDS.keys() & DEFAULTS)
KEEP_ALIVE = ["idle", "interval", "probes"]


def names_of_arguments(function):
    """Of those that are passed by name."""
    return {it.name for it in inspect.signature(function).parameters.values() if it.kind is it.KEYWORD_ONLY}


def test_type_checkers_know_the_options_that_the_core_takes():
    assert iocpcore.Options.__optional_keys__ == DEFAULTS.keys()


@pytest.mark.parametrize("name", DEFAULTS)
def test_help_tells_each_options_default(name):
    (item,) = [line for line in iocpcore.Options.__doc__.splitlines() if line.startswith(f"- {name} (")]
    assert f"default {DEFAULTS[name]}):" in item


@pytest.mark.parametrize("name", NUMBERS)
def test_help_tells_the_bounds_of_a_number(name):
    assert "- {} (bytes from {} to {};".format(name, *OPTION_BOUNDS[name]) in iocpcore.Options.__doc__


@pytest.mark.parametrize("part", KEEP_ALIVE)
def test_help_tells_the_bounds_of_each_part_of_keep_alive(part):
    least, most = OPTION_BOUNDS[f"keep_alive's {part}"]
    assert f"{part}: from {least} to {most}." in " ".join(iocpcore.Options.__doc__.split())


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_default_of_an_option_can_be_given(proactor, name):
    proactor.listen(iocpcore.ECHO, **{name: DEFAULTS[name]})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("end", [0, 1], ids=["least", "most"])
def test_a_number_at_its_bound_is_taken_and_one_beyond_it_is_refused(proactor, name, end):
    bounds = OPTION_BOUNDS[name]
    room = {"high_water": OPTION_BOUNDS["high_water"][1]}  # for every low_water
    proactor.listen(iocpcore.ECHO, **(room | {name: bounds[end]}))
    with pytest.raises(ValueError, match=f"{name} must be from {bounds[0]} to {bounds[1]}, not"):
        proactor.listen(iocpcore.ECHO, **(room | {name: bounds[end] + (-1, 1)[end]}))


@pytest.mark.parametrize("end", [0, 1], ids=["least", "most"])
def test_a_keep_alive_at_its_bounds_is_taken(proactor, end):
    keep_alive = tuple(OPTION_BOUNDS[f"keep_alive's {part}"][end] for part in KEEP_ALIVE)
    proactor.listen(iocpcore.ECHO, keep_alive=keep_alive)


@pytest.mark.parametrize("place, part", list(enumerate(KEEP_ALIVE)))
def test_a_part_of_keep_alive_beyond_its_bounds_is_refused_by_its_name(proactor, place, part):
    least, most = OPTION_BOUNDS[f"keep_alive's {part}"]
    keep_alive = [1, 1, 1]
    keep_alive[place] = most + 1
    with pytest.raises(ValueError, match=f"keep_alive's {part} must be from {least} to {most}, not"):
        proactor.listen(iocpcore.ECHO, keep_alive=tuple(keep_alive))


@pytest.mark.parametrize("caller", ["listen", "connect", "adopt"])
def test_a_name_that_no_option_has_is_refused_with_the_caller_that_was_given_it(proactor, caller):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        arguments = {"listen": (), "connect": server.getsockname(), "adopt": (sock,)}[caller]
        with pytest.raises(TypeError, match=rf"^{caller}\(\) got an unexpected keyword argument 'idle_time'$"):
            getattr(proactor, caller)(Recorder(), *arguments, idle_time=1.0)


def test_a_name_that_no_option_has_is_refused_by_serve_itself():
    with pytest.raises(TypeError, match=r"^serve\(\) got an unexpected keyword argument 'idle_time'$"):
        iocpcore.serve(Recorder(), idle_time=1.0)


def test_serve_takes_what_listen_takes_but_for_its_workers():
    passed_on = ServeOptions.__optional_keys__ - DEFAULTS.keys()
    assert passed_on == names_of_arguments(iocpcore.Proactor.listen) - {"workers"}


@pytest.mark.parametrize("name", sorted(names_of_arguments(iocpcore.Proactor.listen)))
def test_the_docstring_of_listen_tells_of_each_argument(name):
    assert f"- {name}: " in iocpcore.Proactor.listen.__doc__
