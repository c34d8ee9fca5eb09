"""Images: bytes of a file to upright sRGB pixels and back, and animations.

The only package where PIL's (width, height) is met; everywhere else a size is (height, width). It
must not know of folders, jobs or tensors.
"""
