"""``python -m reversal``: the command line, as `torchrun -m reversal` calls it."""

from reversal.cli import main

main()
