"""The command, as tests/cli has it."""

from tests.cli.conftest import raydistill

__all__ = ["raydistill"]
