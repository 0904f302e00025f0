"""`python -m dsclora.cli`, as `python -m dsclora`."""

from dsclora.cli import main

main()
