"""Where sweeps are kept: a folder that all nodes share, or a bucket of which each node has a working copy."""

from raydistill.storage.opened import open_store
from raydistill.storage.store import Folder, Follower, Store, Workplace

__all__ = ["Folder", "Follower", "Store", "Workplace", "open_store"]
