"""Prints requirements from pyproject.toml, one a line: of an extra or group by name, of the build itself by `build`."""
import sys
import tomllib
from pathlib import Path


def requirements(name):
    tables = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    if name == "build":
        return tables["build-system"]["requires"]
    return (tables["project"]["optional-dependencies"] | tables["dependency-groups"])[name]


for name in sys.argv[1:]:
    print(*requirements(name), sep="\n")
