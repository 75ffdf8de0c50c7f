"""`python -m archdsl` is `archdsl`."""

from archdsl.cli.main import main

if __name__ == "__main__":
    main()
