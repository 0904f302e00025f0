"""Train networks and adapters; needs PyTorch (`pip install 'dsclora[train]'`)."""
