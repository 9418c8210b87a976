"""Where an echo's time goes: what strace and callgrind have written, read."""

import callgrind
import where
from report import tables

STRACE = """\
    calls syscall
--------- ----------------
     4000 recvfrom
     2000 sendto
        3 mmap
--------- ----------------
     6003 total
"""

CALLGRIND = """\
--------------------------------------------------------------------------------
Ir                   file:function
--------------------------------------------------------------------------------
17,361,171 ( 4.48%)  core.c:__pyx_f_6worker_worker_turn.lto_priv.0 [core.so]
 3,390,785 ( 0.79%)  iocpcore/calls/linux/epoll.c:epoll_start.lto_priv.0 [core.so]
   177,611 ( 0.05%)  core.c:__pyx_f_6worker_worker_turn.part.0.lto_priv.0 [core.so]
"""


def test_strace_tells_the_calls_and_their_sum_is_none_of_them():
    assert where.calls_of(STRACE) == {"recvfrom": 4000, "sendto": 2000, "mmap": 3}


def test_what_comes_once_is_not_counted_for_each():
    few, many = where.Counter(recvfrom=1000, mmap=70), where.Counter(recvfrom=2000, mmap=70)
    assert where.each(few, many, 1000) == {"recvfrom": 1.0}


def test_a_functions_parts_that_the_compiler_has_split_off_are_inside_it():
    assert callgrind.inclusive(CALLGRIND) == {"__pyx_f_6worker_worker_turn": 17_361_171, "epoll_start": 3_390_785}


def test_a_part_is_shown_without_those_inside_it():
    counted = dict.fromkeys(where.PARTS, 0) | {
        "all": 1000,
        "port: waiting, receiving": 100,
        "port: starting operations": 200,
        "handler: delivery": 500,
        "handler: the user's function": 400,
        "Session.send": 150,
    }
    parts = where.own(counted)
    assert sum(count for part, count in parts.items() if part != "all") == parts["all"] == 1000
    assert parts["handler: the user's function"] == 250


def test_a_native_echo_has_no_handlers_parts():
    counted = dict.fromkeys(where.PARTS, 7) | {"all": 1000, "handler: delivery": 0}
    assert [part for part in where.own(counted) if part.startswith(("handler", "Session"))] == []


def test_the_table_has_a_column_for_each_server_and_a_dash_where_there_is_nothing():
    lines = tables.by_column({"a": {"read": 1.0}, "b": {"write": 2000}}, {"a": "A"}).splitlines()
    assert lines == ["|  | A | b |", "| --- | ---: | ---: |", "| read | 1.0 | – |", "| write | – | 2,000 |"]
