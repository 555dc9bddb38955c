"""``python -m fskernel`` is the command ``fskernel``."""

from fskernel.command.app import main

if __name__ == "__main__":
    main()
