"""Networks as files of other runtimes, each verified in its runtime."""
