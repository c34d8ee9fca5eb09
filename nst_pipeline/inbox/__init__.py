"""The inbox: which files are there, which of them are stable, what belongs together, their bytes.

It must not know what is done with a file, nor change one.
"""
