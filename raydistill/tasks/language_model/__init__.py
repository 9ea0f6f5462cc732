"""The task of language modelling: words or bytes of text files, truncated backpropagation with carried state."""

from raydistill.tasks.language_model.task import LanguageModel

__all__ = ["LanguageModel"]
