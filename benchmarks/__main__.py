"""`python -m benchmarks` lists the benchmarks; `python -m benchmarks NAME ...` runs one."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

PLACE = Path(__file__).parent


def main() -> None:
    """Run the benchmark that is named first, with the arguments after it."""
    known = sorted(path.stem for path in PLACE.glob("*.py") if not path.stem.startswith("_"))
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        for name in known:
            text = ast.get_docstring(ast.parse((PLACE / f"{name}.py").read_text()))
            print(f"{name:20} {(text or '').splitlines()[0]}")
        sys.exit(0 if len(sys.argv) < 2 else 2)
    name = sys.argv.pop(1)
    runpy.run_path(str(PLACE / f"{name}.py"), run_name="__main__")


if __name__ == "__main__":
    main()
