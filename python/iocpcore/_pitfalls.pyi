from typing import Final

__test__: Final[dict[str, str]]  # made by Cython

def run(name: str, wrong: bool, stage: object) -> tuple[str, str]: ...
