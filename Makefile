# Every target does its own set-up on a Debian or Ubuntu machine: tools/prepare says what it installs, and when not.
# Each build has a directory of its own: build/native, build/strict, build/windows, build/asan, ...
SHELL = /bin/bash
VARIANT = native
SEEDS = 10000
SOAK_SECONDS = 60
CALLS = 20000
# Directories too: they change when a file is added or removed.
SOURCES := $(shell find iocpcore python setup.py pyproject.toml MANIFEST.in README.md LICENSE -not -path '*/__pycache__*')

.NOTPARALLEL:
.PHONY: demo test test-native test-windows test-msvc bench lint types docs simulate mutants pythons soak soak-windows asan tsan
.PHONY: fuzz valgrind gate check check-rest packages clean

demo: build/$(VARIANT)/installed
	.venv/bin/python -m iocpcore demo

# Side by side, since each suite waits for half of its time. What they need is built before: builds share build/cython.
test: build/$(VARIANT)/installed packages
	tests/windows/install
	tools/beside "$(MAKE) test-native" "$(MAKE) test-windows"

# Files are shared out among so many processes: the tests mostly wait.
LANES = 3
test-native: build/$(VARIANT)/installed packages
	.venv/bin/python -m pytest -n $(LANES) --dist loadfile

test-windows: .venv/ready
	tests/windows/run

# The same suite, the module compiled for the ABI of Microsoft's compiler: TESTS= is the whole of it.
TESTS =
test-msvc: .venv/ready
	IOCPCORE_WINDOWS_COMPILER=msvc tests/windows/run $(TESTS)

# The full matrix, for half an hour or more: BENCH= is the quick one, BENCH="--full -k echo" a part.
BENCH = --full
bench: build/$(VARIANT)/installed
	bench/install
	.venv/bin/python -m pytest bench $(BENCH)

lint: .venv/ready
	PATH=$$PWD/.venv/bin:$$PATH && ruff check && cython-lint iocpcore tests

# Annotations, and the stubs against the modules that are installed.
types: build/$(VARIANT)/installed
	.venv/bin/python -m mypy
	.venv/bin/python -m mypy.stubtest iocpcore._core iocpcore._pitfalls

docs: build/$(VARIANT)/installed
	.venv/bin/python -m sphinx -q -W --keep-going -d build/docs/.doctrees docs build/docs

simulate: .venv/ready
	.venv/bin/python tests/simulation/simulate.py --seeds $(SEEDS) --jobs 0

mutants: .venv/ready
	.venv/bin/python tests/simulation/simulate.py --mutants --seeds 2000 --jobs 0

# On every CPython that is found here.
pythons: packages
	tools/pythons

# Real sockets, faults from outside: the soak itself, and the tests of it and of leaks.
soak: build/$(VARIANT)/installed
	tests/soak/run .venv/bin/python $(SOAK_SECONDS)
	.venv/bin/python -m pytest tests/soak

soak-windows:
	tests/windows/run tests/soak
	tests/soak/run tests/windows/python $(SOAK_SECONDS)

asan tsan: .venv/ready
	tools/sanitize $@

# Random calls of the Python API, under ASan and UBSan, on each backend.
fuzz: .venv/ready
	tools/sanitize asan --script tests/soak/fuzz.py --calls $(CALLS)

valgrind: .venv/ready
	tools/valgrind

# Instructions and calls, no time: see bench/gate.py.
gate: build/$(VARIANT)/installed
	tools/gate

# The Windows wheel comes first, so that the test of the packages finds all of them. The suites with the checkers of
# memory, and all that is quick, run side by side too: they share no directory that either builds in.
check: lint .venv/bench packages
	IOCPCORE_WINDOWS=required tests/windows/build-wheel
	IOCPCORE_WERROR=1 $(MAKE) VARIANT=strict types docs
	IOCPCORE_WINDOWS=required IOCPCORE_WERROR=1 $(MAKE) VARIANT=strict test
	tools/beside "$(MAKE) asan" "$(MAKE) check-rest"

check-rest:
	IOCPCORE_WINDOWS=required $(MAKE) test-msvc TESTS="-q tests/test_iocp.py tests/test_echo.py tests/test_connect.py"
	$(MAKE) VARIANT=strict gate
	$(MAKE) valgrind
	$(MAKE) VARIANT=strict SOAK_SECONDS=30 soak

packages: build/sdist/made

clean:
	rm -rf build .venv

.venv/ready: pyproject.toml tools/prepare tools/apt.sh
	tools/prepare && touch $@

# What draws the report is large, and nothing else needs it.
.venv/bench: .venv/ready
	.venv/bin/python -m pip install -q -r <(.venv/bin/python tools/requirements.py bench) && touch $@

build/$(VARIANT)/installed: .venv/ready $(SOURCES)
	tools/wheel $(VARIANT) && .venv/bin/python -m pip install -q --no-index --no-deps --force-reinstall build/$(VARIANT)/*.whl && touch $@

build/sdist/made: .venv/ready $(SOURCES)
	tools/sdist && touch $@
