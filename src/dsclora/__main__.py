"""`python -m dsclora`, which is also how `torchrun` starts it."""

from dsclora.cli import main

main()
