"""`python -m archdsl` is `archdsl`: it, too, imports nothing from the working folder, which Python puts first."""

import sys

if __name__ == "__main__":
    first = None if sys.flags.safe_path else sys.path.pop(0)  # before anything else is imported
    from archdsl.processes.imports import left

    left(first)
    from archdsl.cli.main import main

    main()
