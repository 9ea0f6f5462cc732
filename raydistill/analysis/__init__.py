"""Looking at a trained network: what its layers bear, what they answer, what is left when it is thinned.

Nothing here prints. Everything is light to import; what is heavy is imported where it is used.
"""
