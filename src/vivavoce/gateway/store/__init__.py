"""Where accounts, deployments, keys, role assignments and usage are kept."""
