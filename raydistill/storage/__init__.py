"""Where sweeps are kept: a folder that all nodes share, or a bucket of which each node has a working copy."""

from raydistill.storage.open_store import open_store
from raydistill.storage.store import Folder, JournalListener, Store, Workplace

__all__ = ["Folder", "JournalListener", "Store", "Workplace", "open_store"]
