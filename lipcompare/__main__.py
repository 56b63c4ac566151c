"""``python -m lipcompare``: the command line, for those who have no scripts of packages in their path."""

from lipcompare.cli.entry import main

if __name__ == "__main__":
    main()
