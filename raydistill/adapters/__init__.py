"""Trials inside the trainers that people have already: a callback for each, imported where it is named.

``raydistill.adapters.lightning`` needs Lightning, ``raydistill.adapters.transformers`` needs transformers.
"""
