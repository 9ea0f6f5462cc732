"""Whole numbers in the languages of formats."""
