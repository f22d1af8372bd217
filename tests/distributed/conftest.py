"""Settings that Ray reads when it is imported: tests send nothing out and leave no token in the user folder."""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
