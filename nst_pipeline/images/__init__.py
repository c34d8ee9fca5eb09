"""Images: bytes of a file to upright sRGB pixels and back, and animations.

The only package that uses PIL's (width, height); everywhere else a size is (height, width). It
must not know of folders, jobs or tensors.
"""
